"""A model's folder as Hugging Face's libraries write it: `config.json`, a file of arrays, how its texts or pictures are prepared.

`folder` finds the parts in a folder, a zip or a tar; `families` names the networks that are known, one module each; `reading` makes one
network of it all. Nothing in a folder is code here, whatever it says; `conversion` is the process that reads what a client sent.
"""
