"""Models that users bring: their files become a graph of stock layers and its numbers, in a process that has no Keras.

Nothing of a user's file is given to Keras: `app.spec.architectures.keras_graph` says what a graph may hold. May import `app.spec` and
`app.data`.
"""
