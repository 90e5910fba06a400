"""One fit: its plan and goal, the steps, what is watched and what a checkpoint holds. Imports `networks` and what is below.

`plan` and `goal` are values without Keras.
"""
