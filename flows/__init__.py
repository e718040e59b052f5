"""Prefect over DVC: scheduling, retries, GPU slots and artifacts in the UI. Only this package imports prefect.

python -m flows up                          # server, worker and MLflow's UI, until Ctrl-C
python -m flows reproduce --profile smoke   # a flow, with or without a server
"""
