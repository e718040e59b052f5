"""The command line."""

from __future__ import annotations

import argparse
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path

from diffground.entry_point import run_entry_point
from diffground.errors import UserError
from diffground.reproduction import paths
from diffground.reproduction.fetch import ARTIFACTS, plan_fetch
from diffground.runtime.instruction_set import limit_instruction_set


def main(arguments: Sequence[str] | None = None) -> None:
    """Run one command and exit: 0, or 2 with one line on stderr."""
    args = _parser().parse_args(arguments)
    command = shlex.join(["diffground", *(sys.argv[1:] if arguments is None else arguments)])
    sys.exit(run_entry_point(lambda: args.run(args), resume_with=command))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="diffground", description="Masks for any words from a text-to-image model.")
    commands = parser.add_subparsers(dest="command", required=True)

    profile = commands.add_parser("profile", help="compose conf/ into params.yaml")
    profile.add_argument("name", help="a file of conf/profile: mini, smoke, paper_voc, paper_coco")
    profile.add_argument(
        "overrides", nargs="*", metavar="KEY=VALUE", help="e.g. grounding.iterations=100, experiment=seen_05"
    )
    profile.set_defaults(run=_profile)

    ground = commands.add_parser("ground", help="generate an image and segment words in it")
    ground.add_argument("prompt", help='e.g. "a photograph of a unicorn and a dog"')
    ground.add_argument(
        "-c", "--category", action="append", required=True, metavar="WORDS", help="words of the prompt; may be repeated"
    )
    ground.add_argument(
        "--word",
        action="append",
        default=[],
        metavar="[WORD=]FILE",
        help="textual inversion (safetensors) of a new word; WORD if the prompt writes it in another way than the file; "
        "may be repeated",
    )
    ground.add_argument("--seed", type=int, default=0, help="seed of the image's noise")
    ground.add_argument(
        "--method",
        choices=("grounding", "daam"),
        default="grounding",
        help="method that finds the words: the grounding module (default), or the baseline DAAM",
    )
    ground.add_argument(
        "--grounding",
        type=Path,
        metavar="FOLDER",
        help=f"grounding module, e.g. of import-released; default: {paths.GROUNDING_MODEL}, or before a reproduction "
        f"{paths.SHIPPED}/grounding",
    )
    ground.add_argument(
        "--allow-other-generator",
        action="store_true",
        help="use a grounding module that was trained on another generator",
    )
    ground.add_argument(
        "--threshold",
        type=float,
        metavar="SCORE",
        help="score from which a pixel belongs to a word, 0..1; default: grounding.mask_threshold, for DAAM the one "
        "that evaluate_grounding chose",
    )
    ground.add_argument("-o", "--out", type=Path, default=Path("ground.png"), help="overlay image (PNG)")
    ground.set_defaults(run=_ground)

    _add_experiments(commands.add_parser("experiments", help="rows of the paper's tables: list, run or collect them"))
    compare = commands.add_parser(
        "compare", help="a table of the scores of several runs, with differences to the first"
    )
    compare.add_argument(
        "names",
        nargs="+",
        metavar="RUN",
        help="'here' (reports/metrics), a record of reports/experiments, a DVC experiment, or an MLflow parent run",
    )
    compare.add_argument("--csv", action="store_true", help="comma-separated values instead of a Markdown table")
    compare.set_defaults(run=_compare)

    sync = commands.add_parser("sync", help="send the runs that were recorded while the MLflow server was unreachable")
    sync.set_defaults(run=_sync)

    recover = commands.add_parser("recover", help="repair DVC's files after it was killed while writing one")
    recover.set_defaults(run=_recover)

    verify = commands.add_parser("verify", help="compare all outputs here with those of the last commit")
    verify.add_argument(
        "--record",
        action="store_true",
        help="write this machine to reports/machine.json, to be committed with dvc.lock",
    )
    verify.set_defaults(run=_verify)

    review = commands.add_parser(
        "review", help="write a page of the Protocol I test set for manual review, and a CSV to edit"
    )
    review.add_argument(
        "-o",
        "--out",
        type=Path,
        default=Path("reports/review.html"),
        help="page to write; the CSV is written next to it",
    )
    review.set_defaults(run=_review)

    fetch = commands.add_parser("fetch", help="download what the paper's profiles need; resumes broken downloads")
    fetch.add_argument("name", choices=ARTIFACTS, help="; ".join(f"{name}: {what}" for name, what in ARTIFACTS.items()))
    fetch.add_argument(
        "--root", type=Path, metavar="DIR", help="where to: 'data' for data sets, their libraries' caches for weights"
    )
    fetch.add_argument("--dry-run", action="store_true", help="only list what would be downloaded, and where to")
    fetch.set_defaults(run=_fetch)

    released = commands.add_parser("import-released", help="make a model folder of the paper authors' weights")
    released.add_argument("file", type=Path, help="the published file, grounding_module.pth")
    read_from = f"model folder to write; `ground --grounding FOLDER` reads it, the stages read {paths.GROUNDING_MODEL}"
    released.add_argument("-o", "--out", type=Path, required=True, metavar="FOLDER", help=read_from)
    released.set_defaults(run=_import_released)

    imported = commands.add_parser("import-maskformer", help="make a segmenter of weights of the official MaskFormer")
    imported.add_argument("file", type=Path, metavar="MODEL.pth", help="a checkpoint of the authors' train_net.py")
    read_by = f"model folder to write; the stages read {paths.SEGMENTERS}/TRAINING_SET"
    imported.add_argument("folder", type=Path, metavar="FOLDER", help=read_by)
    imported.set_defaults(run=_import_maskformer)

    exported = commands.add_parser("export-maskformer", help="write a segmenter as weights of the official MaskFormer")
    exported.add_argument("folder", type=Path, metavar="FOLDER", help=f"a segmenter, e.g. {paths.SEGMENTERS}/synthetic")
    exported.add_argument(
        "file", type=Path, metavar="MODEL.pth", help="file to write; its settings are written to MODEL.yaml next to it"
    )
    exported.set_defaults(run=_export_maskformer)
    return parser


def _add_experiments(parser: argparse.ArgumentParser) -> None:
    actions = parser.add_subparsers(dest="action", required=True)
    for name, what, action in (
        ("list", "list every experiment, with its source, expected time and profiles", _list_experiments),
        (
            "run",
            "run the unfinished ones, one after another; params.yaml, dvc.lock and reports/ do not change",
            _run_experiments,
        ),
        ("collect", f"write the scores of finished ones to {paths.EXPERIMENTS}", _collect_experiments),
    ):
        command = actions.add_parser(name, help=what)
        command.add_argument("globs", nargs="*", metavar="GLOB", help="names, e.g. 'table1_*'; default: all")
        command.set_defaults(run=action)
        if name != "list":
            command.add_argument("--profile", help="a file of conf/profile; default: that of params.yaml")


def _profile(args: argparse.Namespace) -> None:
    from diffground.reproduction.composition import compose_params, write_params

    text = compose_params(args.name, conf=Path("conf"), overrides=args.overrides)
    if args.name == "smoke":
        from diffground.reproduction.smoke import build_components

        build_components(Path("models/smoke"))
    write_params(text, paths.PARAMS)
    print(f"{paths.PARAMS}: profile '{args.name}'")


def _ground(args: argparse.Namespace) -> None:
    from diffground.reproduction.config import load_params

    if args.seed < 0:
        raise UserError(f"--seed must not be negative, got {args.seed}")
    shipped = paths.SHIPPED / "grounding"
    use_shipped = not paths.GROUNDING_MODEL.is_dir() and shipped.is_dir()
    grounding = args.grounding or (shipped if use_shipped else paths.GROUNDING_MODEL)
    params = load_params(paths.PARAMS)
    limit_instruction_set(params.runtime.instruction_set)
    # imported late: torch takes seconds, a wrong argument should not
    from diffground.ground_command import ground

    ground(
        args.prompt,
        args.category,
        textual_inversions=args.word,
        seed=args.seed,
        grounding=grounding if args.method == "grounding" else None,
        threshold=args.threshold,
        out=args.out,
        params=params,
        allow_other_generator=args.allow_other_generator,
    )


def _list_experiments(args: argparse.Namespace) -> None:
    from diffground.reproduction.catalogue import read_catalogue, select

    for experiment in select(read_catalogue(), args.globs):
        print(f"{experiment.name:<18} {experiment.source}; {experiment.time}; profiles: {experiment.profiles}")


def _run_experiments(args: argparse.Namespace) -> None:
    from diffground.experiments.run import run_experiments
    from diffground.reproduction.catalogue import read_catalogue, select

    profile = _profile_of(args)
    run_experiments(select(read_catalogue(), args.globs, profile=profile), profile=profile, root=Path())


def _collect_experiments(args: argparse.Namespace) -> None:
    from diffground.experiments.collect import collect_experiments
    from diffground.reproduction.catalogue import read_catalogue, select

    profile = _profile_of(args)
    chosen = select(read_catalogue(), args.globs, profile=profile)
    written = collect_experiments(chosen, profile=profile, root=Path())
    for name, path in written.items():
        print(f"{name}: {path or 'not run'}")


def _profile_of(args: argparse.Namespace) -> str:
    from diffground.reproduction.composition import require_known
    from diffground.reproduction.config import load_params

    if args.profile:
        require_known(args.profile, conf=Path("conf"))
    return args.profile or load_params(paths.PARAMS).profile


def _compare(args: argparse.Namespace) -> None:
    from diffground.experiments.compare import comparison
    from diffground.reproduction.config import load_params

    table = comparison(args.names, tracking=load_params(paths.PARAMS).tracking)
    print(table.to_csv() if args.csv else table.to_markdown(), end="")


def _sync(args: argparse.Namespace) -> None:
    from diffground.reproduction.config import load_params
    from diffground.tracking import sync_journal
    from diffground.tracking.journal import journal_folder

    summary = sync_journal(journal_folder(), uri=load_params(paths.PARAMS).tracking.uri)
    running = f"; {summary.num_left} still run" if summary.num_left else ""
    refused = f"; {summary.num_refused} entries were refused, see refused.jsonl there" if summary.num_refused else ""
    print(f"{journal_folder()}: {summary.num_delivered} runs delivered{running}{refused}")


def _recover(args: argparse.Namespace) -> None:
    from diffground.reproduction.commands import check_dvc_is_idle
    from diffground.reproduction.recovery import recover

    check_dvc_is_idle(Path())
    print("\n".join(recover()) or "nothing is damaged")


def _verify(args: argparse.Namespace) -> None:
    from diffground.reproduction.config import load_params
    from diffground.reproduction.verify import MACHINE, Machine, committed_machine, verify

    here = Machine.here(load_params(paths.PARAMS).runtime)
    if args.record:
        here.record(MACHINE)
        print(f"{MACHINE}: written")
        return
    found = verify()
    if found is None:
        print("all outputs equal the committed ones, byte for byte")
        return
    committed = committed_machine()
    differences = ["the committed machine is not recorded"] if committed is None else committed.differences(here)
    print(f"first difference: stage {found.stage}, {', '.join(found.outputs)}")
    print(
        "\n".join(
            [*found.params, *differences] or ["parameters, processor and versions are those of the committed run"]
        )
    )
    sys.exit(1)


def _review(args: argparse.Namespace) -> None:
    from diffground.data.labelled import read_labelled_samples
    from diffground.evaluation.review import read_review
    from diffground.report.review_page import write_review_page
    from diffground.reproduction.config import load_params

    if args.out.suffix != ".html" or args.out.resolve().parent == paths.REVIEWS.resolve():
        raise UserError(f"--out must end in .html and lie outside of {paths.REVIEWS}, got '{args.out}'")
    review = read_review(paths.REVIEWS / f"{load_params(paths.PARAMS).profile}.csv")
    sheet = args.out.with_suffix(".csv")
    samples = read_labelled_samples(generated=paths.GENERATED["test"], oracle=paths.ORACLE["test"])
    counts = write_review_page(args.out, samples, review)
    listed = ", ".join(f"{num} {verdict}" for verdict, num in sorted(counts.items()))
    print(f"{args.out}: {listed}; edit {sheet} and save it as {review.path}")


def _fetch(args: argparse.Namespace) -> None:
    plan = plan_fetch(args.name, root=args.root)
    print("\n".join(plan.describe()), flush=True)
    if not args.dry_run:
        plan.run()
        print(f"{args.name}: complete; {plan.next_step}")


def _import_released(args: argparse.Namespace) -> None:
    from diffground.grounding.import_released import RELEASED_SPEC, import_released

    module = import_released(args.file, args.out)
    num_weights = sum(weight.numel() for weight in module.parameters())
    print(f"{args.out}: the released grounding module, {num_weights:,} weights, for {RELEASED_SPEC.generator_id}")


def _import_maskformer(args: argparse.Namespace) -> None:
    from diffground.reproduction.config import load_params
    from diffground.segmentation.official_checkpoint import import_maskformer
    from diffground.vocabulary import table_categories

    params = load_params(paths.PARAMS)
    categories = table_categories(params.vocabulary.name)
    description = import_maskformer(
        args.file, args.folder, categories=categories, image_size=params.segmenter.image_size
    )
    print(f"{args.folder}: {description}")


def _export_maskformer(args: argparse.Namespace) -> None:
    from diffground.segmentation.official_checkpoint import export_maskformer

    for path in export_maskformer(args.folder, args.file):
        print(f"{path}: written")
