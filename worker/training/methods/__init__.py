"""The kinds of job, one package each, found by its name.

A kind has `Spec` (its words), `EXAMPLE` (a job that ends within a minute on two cores), `resolve(spec, lookup)` (every default,
or every fault), `inputs(spec)` and `held_out(spec)` (what the job is given and examined on), and `experiment(spec, run)`: an
`Experiment`, which says what networks the job fits, from what and on what. None of them imports Keras before `experiment` is
called, so that the API can read their words without it: `spec.py` never does, `train.py` does. `REPORT` is a subclass of
`app.spec.report.Report`: the API's document describes the kind's reports by it.

Files that begin with "_" are what they share; `_sources` and `_teachers` import Keras, so only `train.py` imports those. The
room may import `experiment`, `report`, `run` and all below.
"""
