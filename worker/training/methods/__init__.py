"""The kinds of job, one package each, found by its name.

A kind has `Spec` (its fields), `EXAMPLE` (a job that ends within a minute on two cores), `resolve(spec, lookup)` (every default,
or every fault), `inputs(spec)` (the data sets and models that the job is given), `held_out(spec)` (the data sets that it is
examined on), and `experiment(spec, run)`: an `Experiment`, which says which networks the job fits, from which models and on which
data. None of them imports Keras before `experiment` is called, so that the API can read specs without it: `spec.py` never does,
`train.py` does. `REPORT` is a subclass of `app.spec.report.Report`: the API's document describes the kind's reports by it.

Files that begin with "_" are shared by the kinds; `_sources` and `_teachers` import Keras, so only `train.py` imports those. This
package may import `experiment`, `report`, `run` and all below.
"""
