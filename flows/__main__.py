"""`python -m flows`: up, status, reproduce, ablate, train_checkpoints."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from importlib.util import find_spec

from diffground.entry_point import run_entry_point
from diffground.errors import UserError
from flows.places import ROOT, prefect_environment
from flows.stack import Ports, running_stack, status, up


def main() -> None:
    """Run one command and exit: 0, or 2 with one line on stderr."""
    args = _parser().parse_args()
    os.chdir(ROOT)
    sys.exit(run_entry_point(lambda: args.run(args), resume_with=f"python -m flows {' '.join(sys.argv[1:])}"))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m flows", description="The pipeline under Prefect.")
    commands = parser.add_subparsers(dest="command", required=True)
    stack = commands.add_parser("up", help="start Prefect's server, a worker and MLflow's UI, until Ctrl-C")
    stack.add_argument("--port", type=int, default=Ports.prefect, help="of Prefect's UI; default: %(default)s")
    stack.add_argument("--mlflow-port", type=int, default=Ports.mlflow, help="of MLflow's UI; default: %(default)s")
    stack.set_defaults(run=_up)
    commands.add_parser("status", help="show servers, workers and flow runs").set_defaults(
        run=lambda args: print(status())
    )

    reproduce = commands.add_parser("reproduce", help="run the pipeline, on the server of `up` or without one")
    for option in ("profile", "experiment", "first-stage", "last-stage"):
        reproduce.add_argument(f"--{option}", metavar="NAME")
    _add_flow(reproduce, "reproduce")

    ablate = commands.add_parser("ablate", help="run experiments in parallel and compare them")
    ablate.add_argument("experiments", nargs="*", metavar="NAME", help="files of conf/experiment")
    ablate.add_argument("--profile", metavar="NAME", required=True)
    ablate.add_argument(
        "--matrix", action="append", default=[], metavar="KEY=A,B", help="values to combine with all others"
    )
    ablate.add_argument(
        "--target", metavar="STAGE", default=argparse.SUPPRESS, help="last stage of runs without an experiment"
    )
    ablate.add_argument("--num-parallel", type=int, default=1, help="runs at the same time; default: %(default)s")
    _add_flow(ablate, "ablate")

    trainings = commands.add_parser("train-checkpoints", help="the trainings that made models/mini")
    trainings.add_argument("retrain", nargs="*", metavar="STAGE", help="frozen stages to run again")
    _add_flow(trainings, "train_checkpoints")
    return parser


def _add_flow(parser: argparse.ArgumentParser, flow: str) -> None:
    """Let `parser` run the flow, whose parameters have the names of its arguments."""
    parser.add_argument(
        "--retries", type=int, default=2, help="after a lost worker or lack of memory; default: %(default)s"
    )
    parser.add_argument("--retry-delay-s", type=float, default=30.0, help="default: %(default)s")
    parser.set_defaults(run=_run_flow, flow=flow)


def _up(args: argparse.Namespace) -> None:
    _require_prefect()
    up(Ports(prefect=args.port, mlflow=args.mlflow_port))


def _matrix(entries: Sequence[str]) -> dict[str, list[str]]:
    """Raises: UserError for an entry without values, and for a key that is named twice."""
    matrix = {}
    for entry in entries:
        key, separator, values = entry.partition("=")
        if not separator:
            raise UserError(f"--matrix must be KEY=A,B, got '{entry}'")
        if key in matrix:
            raise UserError(f"--matrix names {key} twice; give all its values at once: KEY=A,B")
        matrix[key] = values.split(",")
    return matrix


def _run_flow(args: argparse.Namespace) -> None:
    """Run a flow in this process. Raises: UserError with the message of a run that failed."""
    parameters = {name: value for name, value in vars(args).items() if name not in ("command", "run", "flow")}
    if "matrix" in parameters:
        parameters["matrix"] = _matrix(args.matrix)
    stack = running_stack()
    os.environ.update(prefect_environment(api_url=stack.api_url if stack else None))
    if stack:
        os.environ.update(stack.environment())
    _require_prefect()
    # imported late: Prefect reads its settings when it is imported
    from importlib import import_module

    from prefect.exceptions import ParameterTypeError

    chosen = getattr(import_module(f"flows.{args.flow}"), args.flow)
    try:
        state = chosen(**parameters, return_state=True)
    except ParameterTypeError as error:
        raise UserError(" ".join(str(error).split())) from None
    if not state.is_completed():
        raise UserError(state.message or f"the run ended as {state.name}")


def _require_prefect() -> None:
    """Raises: UserError where it is not installed."""
    if find_spec("prefect") is None:
        raise UserError("Prefect is not installed; run `pip install -e '.[flows]'`")


if __name__ == "__main__":
    main()
