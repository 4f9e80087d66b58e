"""Tables of upstreams and tasks: `mynah benchmark`.

`config.py` and `specs.py` say what a table is, `plan.py` its experiments, `store.py` its folder; `worker.py` and
`experiment.py` run them; `cells.py` chooses learning rates and takes means; `writing.py` and `chart.py` write the
results; `compare.py` makes a table of experiments that exist.
"""
