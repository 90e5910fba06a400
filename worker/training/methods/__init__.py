"""The kinds of job, one module each, found by the file's name.

A module has `Spec` (its words), `EXAMPLE` (a job that ends within a minute on two cores), `resolve(spec, world)` (every default,
or every fault), `inputs(spec)` and `held_out(spec)` (what the job is given and examined on), and `train(spec, run)`. None of them
imports Keras before `train` is called, so that the API can read their words without it. `REPORT` is a subclass of
`app.spec.report.Report`: `conclude` writes it, and the API's document describes the kind's reports by it.

Files that begin with "_" are what they share; `_sources` and `_teachers` import Keras, so only `train` imports those. The room may
import `run`, `report` and all below.
"""
