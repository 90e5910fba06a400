"""Task types: what a head predicts. `heads` has the parts that all types share; each type has a module of its own, whose other half, which
the API reads too, is in `app.spec.tasks`. Imports `scores` and `objectives`."""
