"""The help of the commands: in groups, each command with examples."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Generator

GROUPS = {
    "use": ("ground", "segment", "studio"),
    "data": ("new", "quality", "export", "fetch"),
    "pipeline": (
        "profile",
        "reproduce",
        "experiments",
        "compare",
        "sync",
        "recover",
        "verify",
        "doctor",
        "completion",
    ),
    "exchange": ("import-released", "import-maskformer", "export-maskformer", "export-onnx"),
}
"""Title in the main help -> commands. Commands that are in no group are listed as "other"."""

EXAMPLES = {
    "ground": (
        'diffground ground "a photograph of a unicorn and a dog" -c unicorn -c dog -o unicorn.png',
        'diffground ground "a photograph of a dog" "a photograph of a sofa" -n 4 -o pictures',
        "diffground ground --prompts prompts.txt -c dog -c sofa -o pictures",
    ),
    "segment": (
        "diffground segment photos/ -c dog -c sofa",
        "diffground segment 'photos/*.jpg' -c dog --prompt \"a photograph of my dog\" -o masks",
        "diffground segment photos/ --with models/mini/segmenter",
    ),
    "studio": ("diffground studio", "diffground studio --port 8000"),
    "new": (
        "diffground new snacks --seen dog,cat,person --unseen pizza,unicorn,rocket",
        "diffground new yard --base paper_voc --from-list names.txt",
    ),
    "export": (
        "diffground export data/synthetic --format coco -o exported",
        "diffground export data/synthetic --format voc --format hf --split 0.8,0.1,0.1 --min-quality 0.9 -o exported",
    ),
    "quality": ("diffground quality", "diffground quality data/synthetic --min-quality 0.85 --json"),
    "export-onnx": ("diffground export-onnx models/segmenter/synthetic segmenter.onnx",),
    "fetch": ("diffground fetch voc2012 --dry-run", "diffground fetch sd15"),
    "profile": ("diffground profile mini", "diffground profile mini grounding.iterations=100 experiment=seen_05"),
    "reproduce": ("diffground reproduce",),
    "experiments": (
        "diffground experiments list",
        "diffground experiments run 'table1_*'",
        "diffground experiments run table2_model_c --seeds 5",
    ),
    "compare": ("diffground compare here seen_05", "diffground compare here seen_05 --csv"),
    "sync": ("diffground sync",),
    "recover": ("diffground recover",),
    "verify": ("diffground verify", "diffground verify --record"),
    "completion": ("diffground completion bash",),
    "doctor": ("diffground doctor", "diffground doctor --json"),
    "import-released": ("diffground import-released grounding_module.pth -o models/released",),
    "import-maskformer": ("diffground import-maskformer model_final.pth models/segmenter/synthetic",),
    "export-maskformer": ("diffground export-maskformer models/segmenter/synthetic model.pth",),
}
"""Command -> what to type, at the end of its help."""


class CommandGroups:
    """The subcommands of a parser. argparse itself cannot list commands in groups."""

    def __init__(self, parser: argparse.ArgumentParser) -> None:
        self._parser = parser
        self._commands = parser.add_subparsers(
            dest="command",
            required=True,
            metavar="COMMAND",
            help="one of the commands below; `COMMAND --help` explains it",
        )
        self._helps: dict[str, str] = {}

    def add_parser(
        self, name: str, run: Callable[[argparse.Namespace], None] | None, *, help: str
    ) -> argparse.ArgumentParser:
        """As argparse's. run: performs the command; None: its own subcommands say what does."""
        self._helps[name] = help
        examples = EXAMPLES.get(name, ())
        parser = self._commands.add_parser(
            name,
            help=help,  # shell completion shows it
            description=f"{help[0].upper()}{help[1:]}.",
            epilog="\n  ".join([f"example{'s' if len(examples) > 1 else ''}:", *examples]) if examples else None,
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )
        parser.set_defaults(run=run)
        return parser

    def finish(self) -> None:
        """List the commands in the help of the parser. Called after the last add_parser."""
        grouped = {name for names in GROUPS.values() for name in names}
        others = tuple(name for name in self._helps if name not in grouped)
        lines = []
        for title, names in {**GROUPS, "other": others}.items():
            there = [name for name in names if name in self._helps]
            lines += [f"{title}:", *(f"  {name:<18} {self._helps[name]}" for name in there), ""] if there else []
        self._parser.formatter_class = _WithoutCommands
        self._parser.epilog = "\n".join(lines).rstrip()


class _WithoutCommands(argparse.RawDescriptionHelpFormatter):
    """Leaves out argparse's own list of the commands, which has no groups."""

    def _iter_indented_subactions(self, action: argparse.Action) -> Generator[argparse.Action]:
        yield from ()
