"""The trainer: one job from its spec to a model, a verdict and a report, in rooms of which each imports only those below it.

The order is the contract `rooms` in pyproject.toml; out of this package only `app.spec`, `app.data` and `worker.reports` are imported.
"""
