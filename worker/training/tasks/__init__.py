"""What a head predicts. `heads` is what all task types share; each has a module of its own beside it, whose other half, which the API
reads too, is in `app.spec.tasks`. Imports `scores` and `objectives`."""
