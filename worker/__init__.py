"""The worker, which supervises trainers, and the programs that run Keras: `training` and `inference`.

The worker imports `app` and no Keras; `training` imports `app.spec` and `app.data` alone, and no database and no broker.
"""
