"""Prefect over DVC: scheduling, retries, GPU slots and what one sees in the UI. This package alone imports prefect.

python -m flows up                          # server, worker and MLflow's UI, until Ctrl-C
python -m flows reproduce --profile smoke   # a flow, with or without a server
"""
