"""One fit: its plan and loss spec, the steps, what is watched and what a checkpoint holds. Imports `networks` and what is below.

`plan` and `loss_spec` are values without Keras.
"""
