"""`python -m flows`: up, status, reproduce, ablate, train_checkpoints."""

from __future__ import annotations

import argparse
import os
import sys
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
    _add_retries(reproduce)
    reproduce.set_defaults(run=_reproduce)

    ablate = commands.add_parser("ablate", help="run experiments in parallel and compare them")
    ablate.add_argument("experiments", nargs="*", metavar="NAME", help="files of conf/experiment")
    ablate.add_argument("--profile", metavar="NAME", required=True)
    ablate.add_argument(
        "--matrix", action="append", default=[], metavar="KEY=A,B", help="values to combine with all others"
    )
    ablate.add_argument("--target", metavar="STAGE", help="last stage of runs without an experiment")
    ablate.add_argument("--num-parallel", type=int, default=1, help="runs at the same time; default: %(default)s")
    _add_retries(ablate)
    ablate.set_defaults(run=_ablate)

    trainings = commands.add_parser("train-checkpoints", help="the trainings that made models/mini")
    trainings.add_argument("retrain", nargs="*", metavar="STAGE", help="frozen stages to run again")
    _add_retries(trainings)
    trainings.set_defaults(run=_train_checkpoints)
    return parser


def _add_retries(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--retries", type=int, default=2, help="after a lost worker or lack of memory; default: %(default)s"
    )
    parser.add_argument("--retry-delay-s", type=float, default=30.0, help="default: %(default)s")


def _up(args: argparse.Namespace) -> None:
    _require_prefect()
    up(Ports(prefect=args.port, mlflow=args.mlflow_port))


def _reproduce(args: argparse.Namespace) -> None:
    names = ("profile", "experiment", "first_stage", "last_stage")
    _run_flow("reproduce", args, **{name: getattr(args, name) for name in names})


def _ablate(args: argparse.Namespace) -> None:
    matrix = {}
    for entry in args.matrix:
        key, separator, values = entry.partition("=")
        if not separator:
            raise UserError(f"--matrix must be KEY=A,B, got '{entry}'")
        if key in matrix:
            raise UserError(f"--matrix names {key} twice; give all its values at once: KEY=A,B")
        matrix[key] = values.split(",")
    target = {"target": args.target} if args.target else {}
    _run_flow(
        "ablate",
        args,
        profile=args.profile,
        experiments=args.experiments,
        matrix=matrix,
        num_parallel=args.num_parallel,
        **target,
    )


def _train_checkpoints(args: argparse.Namespace) -> None:
    _run_flow("train_checkpoints", args, retrain=args.retrain)


def _run_flow(name: str, args: argparse.Namespace, **parameters: object) -> None:
    """Run a flow in this process. Raises: UserError with the message of a run that failed."""
    stack = running_stack()
    os.environ.update(prefect_environment(api_url=stack.api_url if stack else None))
    if stack:
        os.environ.update(stack.environment())
    _require_prefect()
    # imported late: Prefect reads its settings when it is imported
    from importlib import import_module

    from prefect.exceptions import ParameterTypeError

    chosen = getattr(import_module(f"flows.{name}"), name)
    try:
        state = chosen(**parameters, retries=args.retries, retry_delay_s=args.retry_delay_s, return_state=True)
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
