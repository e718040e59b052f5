"""The actions of the commands. Packages that take long to import are imported where they are used."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from diffground.atomic import write_atomically
from diffground.errors import UserError
from diffground.interface.model_choice import grounding_folder
from diffground.reproduction import paths
from diffground.reproduction.fetch import plan_fetch
from diffground.runtime.openmp import wait_briefly

if TYPE_CHECKING:
    from diffground.reproduction.catalogue import Experiment


def profile(args: argparse.Namespace) -> None:
    from diffground.reproduction.choice import choose, keep_edited
    from diffground.reproduction.composition import compose_params

    text = compose_params(args.name, conf=Path("conf"), overrides=args.overrides)
    if args.name == "smoke":
        from diffground.reproduction.smoke import build_components

        build_components(Path("models/smoke"))
    notices = [keep_edited(paths.PARAMS, conf=Path("conf"), replaced_by=text)]
    write_atomically(paths.PARAMS, text)
    notices.append(choose(args.name, args.overrides, composed=text, root=Path()))
    for notice in filter(None, notices):
        print(notice, file=sys.stderr)
    print(f"{paths.PARAMS}: profile '{args.name}'")


def new(args: argparse.Namespace) -> None:
    from diffground.cli.category_sources import names_from_coco, names_from_list, names_from_voc
    from diffground.cli.new import Wish, parse_wishes, write_new

    if args.on:
        raise UserError(f"--on {args.on}: not measured: reports/benchmarks has no row of a GPU; leave it out")
    wishes = parse_wishes(args.seen, unseen=False) + parse_wishes(args.unseen, unseen=True)
    for path, read in (
        (args.from_coco, names_from_coco),
        (args.from_voc, names_from_voc),
        (args.from_list, names_from_list),
    ):
        if path is not None:
            names = read(path)
            by_name = {wish.name: wish for wish in wishes}
            wishes = [by_name.get(name) or Wish(name, name, None) for name in names]
            wishes += [by_name[name] for name in by_name if name not in names]
    if not wishes:
        raise UserError("no category is given; give --seen and --unseen, or --from-coco, --from-voc or --from-list")
    written = write_new(args.name, wishes, base=args.base, pairs=args.pairs, real=args.real)
    vocabulary = written.params.vocabulary.load()
    print(f"{written.vocabulary_file}: {len(vocabulary.seen)} seen, {len(vocabulary.unseen)} unseen categories")
    print(f"{written.profile_file}: profile '{args.name}', all else as in '{args.base}'")
    for note in written.notes:
        print(f"note: {note}")
    counts = ", ".join(f"{len(records):,} {name}" for name, records in written.prompts.items())
    print(f"prompts: {counts}")
    if not args.no_estimate:
        wait_briefly()
        from diffground.cli.cost import as_lines, estimate, measure

        rates = measure(written.params, vocabulary)
        print("\n".join(as_lines(estimate(written.params, written.prompts, rates), rates)))
    if args.real is None:
        print("There are no real images: segmenters are scored on held-out synthetic ones, which cannot replace them.")
    print(f"Next: diffground profile {args.name} && dvc repro")


def reproduce(args: argparse.Namespace) -> None:
    from diffground.cli.reproduce import reproduce

    reproduce()
    try:
        _say_whether_equal()
    except UserError as error:  # no git repository, or parameters that were never committed
        print(f"not compared with the last commit: {error}")


def ground(args: argparse.Namespace) -> None:
    from diffground.cli.ground_command import run_ground

    inversions = [parse_inversion(text) for text in args.word]
    run_ground(args, grounding=grounding_folder(args.grounding), inversions=inversions)


def segment(args: argparse.Namespace) -> None:
    from diffground.cli.segment_command import run_segment

    if not run_segment(args, grounding=grounding_folder(args.grounding)):
        sys.exit(1)


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

    chosen, profile = _chosen_experiments(args)
    run_experiments(chosen, profile=profile, root=Path())


def collect_experiments(args: argparse.Namespace) -> None:
    from diffground.experiments.collect import collect_experiments

    chosen, profile = _chosen_experiments(args)
    written = collect_experiments(chosen, profile=profile, root=Path())
    for name, path in written.items():
        print(f"{name}: {path or 'not run'}")


def _chosen_experiments(args: argparse.Namespace) -> tuple[list[Experiment], str]:
    """With their repetitions; and the profile."""
    from diffground.reproduction.catalogue import read_catalogue, repeat, select
    from diffground.reproduction.composition import require_known
    from diffground.reproduction.config import load_params

    if args.profile:
        require_known(args.profile, conf=Path("conf"))
    profile = args.profile or load_params(paths.PARAMS).profile
    return repeat(select(read_catalogue(), args.globs, profile=profile), args.seeds), profile


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


def doctor(args: argparse.Namespace) -> None:
    from diffground.cli.doctor import doctor

    if not doctor(as_json=args.json):
        sys.exit(1)


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


def studio(args: argparse.Namespace) -> None:
    wait_briefly()
    from diffground.studio.serve import serve

    serve(host=args.host, port=args.port, grounding=args.grounding, segmenter=args.segmenter)


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

    params = load_params(paths.PARAMS)
    categories = params.vocabulary.load().categories
    description = import_maskformer(
        args.file, args.folder, categories=categories, image_size=params.segmenter.image_size
    )
    print(f"{args.folder}: {description}")


def export_maskformer(args: argparse.Namespace) -> None:
    from diffground.segmentation.official_checkpoint import export_maskformer

    for path in export_maskformer(args.folder, args.file):
        print(f"{path}: written")


def export_onnx(args: argparse.Namespace) -> None:
    from diffground.segmentation.onnx_export import export_onnx

    num_bytes = export_onnx(args.folder, args.file)
    print(f"{args.file}: written, {num_bytes / 2**20:.1f} MiB")
