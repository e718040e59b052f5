"""The profile that was chosen stays chosen: DVC composes it too, and a params.yaml edited by hand is kept.

`dvc exp run` composes conf/ again, from the root config that .dvc/config names. `diffground profile` therefore writes a
root config of the chosen profile and its overrides, and names it in .dvc/config.local. Neither is committed. Before DVC
composes, the Hydra plugin conf/dvc/hydra_plugins/keep_edited.py calls keep_edited.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from diffground.atomic import write_atomically
from diffground.errors import UserError, in_one_line
from diffground.reproduction.composition import compose
from diffground.reproduction.params import flat_params

CHOSEN = "chosen"
"""Name of the root config, conf/chosen.yaml."""
BACKUP = Path("params.yaml.bak")

_SIMPLE = re.compile(r"(?P<key>[A-Za-z_][\w./]*)=(?P<value>.*)", re.DOTALL)


def root_config(profile: str, overrides: Sequence[str], *, conf: Path) -> str:
    """The text of a root config that composes as "config" does with profile and overrides (Hydra's KEY=VALUE).

    Raises: UserError for an override that a file cannot express (additions, deletions, packages).
    """
    from hydra.core.override_parser.overrides_parser import OverridesParser
    from omegaconf import OmegaConf

    groups, values = {"profile": profile}, OmegaConf.create()
    for override in overrides:
        [parsed] = OverridesParser.create().parse_overrides([override])
        if _SIMPLE.fullmatch(override) is None or parsed.is_sweep_override() or "@" in parsed.get_key_element():
            raise UserError(f"'{override}' cannot be kept for `dvc exp run`; pass it there with -S")
        if (conf / parsed.key_or_group).is_dir():
            groups[parsed.key_or_group] = parsed.value()
        else:
            OmegaConf.update(values, parsed.key_or_group, parsed.value())
    defaults = ["config", *({f"override {group}": choice} for group, choice in groups.items()), "_self_"]
    command = in_one_line(" ".join(["diffground profile", profile, *overrides]), limit=None)
    head = f"# Written by `{command}`, read by `dvc exp run`.\n"
    return (
        head
        + OmegaConf.to_yaml(OmegaConf.create({"defaults": defaults}))
        + (OmegaConf.to_yaml(values) if values else "")
    )


def choose(profile: str, overrides: Sequence[str], *, composed: str, root: Path) -> str | None:
    """Let `dvc exp run` in `root` compose this profile. `composed`: params.yaml that it has to give.

    Returns: None, or one line that says what `dvc exp run` will not know.
    """
    import yaml

    conf, problem = root / "conf", None
    path = conf / f"{CHOSEN}.yaml"
    try:
        write_atomically(path, root_config(profile, overrides, conf=conf))
        if compose_root(CHOSEN, conf=conf) != yaml.safe_load(composed):
            problem = f"`dvc exp run` gives other values than {' '.join(overrides)}; pass these there with -S"
    except UserError as error:
        problem = str(error)
    if problem is not None:  # the profile at least
        write_atomically(path, root_config(profile, (), conf=conf))
    _name_in_dvc(root)
    return problem


def compose_root(name: str, *, conf: Path) -> dict[str, Any]:
    """The parameters that a root config of `conf` gives. Raises: UserError as compose does."""
    from omegaconf import OmegaConf

    values: dict[str, Any] = OmegaConf.to_container(compose(name, conf=conf))
    return values


def keep_edited(params: Path, *, conf: Path, replaced_by: str | None = None) -> str | None:
    """Copy `params` to params.yaml.bak if its values are not those that conf/ gives: they were edited by hand, or set
    with -S, and are about to be replaced (by `replaced_by`, where that is known).

    Returns: one line that names them; None if nothing is lost.
    """
    import yaml

    if not params.is_file():
        return None
    text = params.read_text(encoding="utf-8", errors="replace")
    if text == replaced_by:
        return None
    name = CHOSEN if (conf / f"{CHOSEN}.yaml").is_file() else "config"
    try:
        changes = _changes(compose_root(name, conf=conf), yaml.safe_load(text))
    except (yaml.YAMLError, UserError):
        changes = ["the whole file"]
    if not changes:
        return None
    backup = params.with_name(BACKUP.name)
    write_atomically(backup, text)
    shown = ", ".join(changes[:5]) + (f" and {len(changes) - 5} more" if len(changes) > 5 else "")
    return f"{params.name}: values that conf/ does not give are replaced ({shown}); the file is kept as {backup.name}"


def _changes(expected: Mapping[str, Any], edited: Any) -> list[str]:
    """Keys whose value is another, with that value."""
    if not isinstance(edited, Mapping):
        return ["the whole file"]
    before, after = flat_params(expected), flat_params(edited)
    return [f"{key}={after.get(key, 'missing')}" for key in {**before, **after} if before.get(key) != after.get(key)]


def _name_in_dvc(root: Path) -> None:
    local = root / ".dvc/config.local"
    if not (root / ".dvc/config").is_file():
        return
    if local.is_file() and f"config_name = {CHOSEN}" in local.read_text(encoding="utf-8"):
        return
    from diffground.reproduction.commands import DVC, output_of

    output_of([*DVC, "config", "--quiet", "--local", "hydra.config_name", CHOSEN], cwd=root)
