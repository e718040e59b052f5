"""The actions of the commands. Packages that take long to import are imported where they are used."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from diffground.errors import UserError
from diffground.model_folders import check_grounding_folder, check_inversion_file, check_pipeline_folder
from diffground.prompts import check_words
from diffground.reproduction import paths
from diffground.reproduction.fetch import plan_fetch
from diffground.runtime.instruction_set import limit_instruction_set


def profile(args: argparse.Namespace) -> None:
    from diffground.reproduction.choice import choose, keep_edited
    from diffground.reproduction.composition import compose_params, write_params

    text = compose_params(args.name, conf=Path("conf"), overrides=args.overrides)
    if args.name == "smoke":
        from diffground.reproduction.smoke import build_components

        build_components(Path("models/smoke"))
    notices = [keep_edited(paths.PARAMS, conf=Path("conf"), replaced_by=text)]
    write_params(text, paths.PARAMS)
    notices.append(choose(args.name, args.overrides, composed=text, root=Path()))
    for notice in filter(None, notices):
        print(notice, file=sys.stderr)
    print(f"{paths.PARAMS}: profile '{args.name}'")


def reproduce(args: argparse.Namespace) -> None:
    from diffground.cli.reproduce import reproduce

    reproduce()
    try:
        _say_whether_equal()
    except UserError as error:  # no git repository, or parameters that were never committed
        print(f"not compared with the last commit: {error}")


def ground(args: argparse.Namespace) -> None:
    from diffground.reproduction.config import load_params

    if args.seed < 0:
        raise UserError(f"--seed must not be negative, got {args.seed}")
    shipped = paths.SHIPPED / "grounding"
    use_shipped = not paths.GROUNDING_MODEL.is_dir() and shipped.is_dir()
    grounding = args.grounding or (shipped if use_shipped else paths.GROUNDING_MODEL)
    if args.out.suffix.lower() != ".png":
        raise UserError(f"--out must end in .png, got '{args.out}'")
    if args.threshold is not None and not 0 < args.threshold <= 1:
        raise UserError(f"--threshold must be above 0 and at most 1, got {args.threshold:g}")
    params = load_params(paths.PARAMS)
    generator = params.generator
    check_pipeline_folder(generator.checkpoint, config_from=generator.config_from, loras=generator.loras)
    if args.method == "grounding":
        check_grounding_folder(grounding)
    inversions = [parse_inversion(text) for text in args.word]
    for _, file in inversions:
        check_inversion_file(file)
    if not inversions:  # with one, the file decides how the prompt is read
        check_words(args.prompt, args.category)
    limit_instruction_set(params.runtime.instruction_set)
    # imported after the checks: torch and diffusers take seconds
    from diffground.cli.ground import ground

    ground(
        args.prompt,
        args.category,
        textual_inversions=inversions,
        seed=args.seed,
        grounding=grounding if args.method == "grounding" else None,
        threshold=args.threshold,
        out=args.out,
        params=params,
        allow_other_generator=args.allow_other_generator,
    )


def parse_inversion(text: str) -> tuple[str | None, Path]:
    """'FILE' or 'WORD=FILE' -> word and file; None: the word is the file's own. A file whose name has an '=' is taken
    as one if it exists."""
    token, _, file = text.partition("=")
    if not token or not file or Path(text).exists():
        return None, Path(text)
    return token, Path(file)


def list_experiments(args: argparse.Namespace) -> None:
    from diffground.reproduction.catalogue import read_catalogue, select

    for experiment in select(read_catalogue(), args.globs):
        print(f"{experiment.name:<18} {experiment.source}; {experiment.time}; profiles: {experiment.profiles}")


def run_experiments(args: argparse.Namespace) -> None:
    from diffground.experiments.run import run_experiments
    from diffground.reproduction.catalogue import read_catalogue, select

    profile = _profile_of(args)
    run_experiments(select(read_catalogue(), args.globs, profile=profile), profile=profile, root=Path())


def collect_experiments(args: argparse.Namespace) -> None:
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


def compare(args: argparse.Namespace) -> None:
    from diffground.experiments.compare import comparison
    from diffground.reproduction.config import load_params

    table = comparison(args.names, tracking=load_params(paths.PARAMS).tracking)
    print(table.to_csv() if args.csv else table.to_markdown(), end="")


def sync(args: argparse.Namespace) -> None:
    from diffground.reproduction.config import load_params
    from diffground.tracking import sync_journal
    from diffground.tracking.journal import journal_folder

    summary = sync_journal(journal_folder(), uri=load_params(paths.PARAMS).tracking.uri)
    running = f"; {summary.num_left} still run" if summary.num_left else ""
    refused = f"; {summary.num_refused} entries were refused, see refused.jsonl there" if summary.num_refused else ""
    print(f"{journal_folder()}: {summary.num_delivered} runs delivered{running}{refused}")


def recover(args: argparse.Namespace) -> None:
    from diffground.reproduction.commands import check_dvc_is_idle
    from diffground.reproduction.recovery import recover

    check_dvc_is_idle(Path())
    print("\n".join(recover()) or "nothing is damaged")


def verify(args: argparse.Namespace) -> None:
    from diffground.reproduction.config import load_params
    from diffground.reproduction.overview import COMMITTED_TIMES, record_times
    from diffground.reproduction.verify import MACHINE, Machine

    if args.record:
        Machine.here(load_params(paths.PARAMS).runtime).record(MACHINE)
        times = f", {COMMITTED_TIMES}" if record_times() else ""
        print(f"{MACHINE}{times}: written")
    elif not _say_whether_equal():
        sys.exit(1)


def _say_whether_equal() -> bool:
    from diffground.reproduction.config import load_params
    from diffground.reproduction.verify import Machine, committed_machine
    from diffground.reproduction.verify import verify as compare_with_commit

    found = compare_with_commit()
    if found is None:
        print("all outputs equal the committed ones, byte for byte")
        return True
    committed = committed_machine()
    differences = (
        ["the committed machine is not recorded"]
        if committed is None
        else committed.differences(Machine.here(load_params(paths.PARAMS).runtime))
    )
    print(f"first difference: stage {found.stage}, {', '.join(found.outputs)}")
    print("\n".join([*found.params, *differences] or ["parameters, processor, threads and versions are equal"]))
    return False


def review(args: argparse.Namespace) -> None:
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


def fetch(args: argparse.Namespace) -> None:
    plan = plan_fetch(args.name, root=args.root)
    print("\n".join(plan.describe()), flush=True)
    if not args.dry_run:
        plan.run()
        print(f"{args.name}: complete; {plan.next_step}")


def import_released(args: argparse.Namespace) -> None:
    from diffground.grounding.import_released import RELEASED_SPEC, import_released

    module = import_released(args.file, args.out)
    num_weights = sum(weight.numel() for weight in module.parameters())
    print(f"{args.out}: the released grounding module, {num_weights:,} weights, for {RELEASED_SPEC.generator_id}")


def import_maskformer(args: argparse.Namespace) -> None:
    from diffground.reproduction.config import load_params
    from diffground.segmentation.official_checkpoint import import_maskformer
    from diffground.vocabulary import table_categories

    params = load_params(paths.PARAMS)
    categories = table_categories(params.vocabulary.name)
    description = import_maskformer(
        args.file, args.folder, categories=categories, image_size=params.segmenter.image_size
    )
    print(f"{args.folder}: {description}")


def export_maskformer(args: argparse.Namespace) -> None:
    from diffground.segmentation.official_checkpoint import export_maskformer

    for path in export_maskformer(args.folder, args.file):
        print(f"{path}: written")
