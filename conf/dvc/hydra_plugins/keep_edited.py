"""Hydra plugin that DVC loads (.dvc/config, plugins_path): keeps an edited params.yaml before it is composed again."""

from __future__ import annotations

import sys
from pathlib import Path

from hydra.core.config_search_path import ConfigSearchPath
from hydra.plugins.search_path_plugin import SearchPathPlugin

from diffground.errors import UserError
from diffground.reproduction.choice import keep_edited


class KeepEdited(SearchPathPlugin):
    """Hydra calls it once per composition, before anything is read or written."""

    _is_running = False

    def manipulate_search_path(self, search_path: ConfigSearchPath) -> None:
        if KeepEdited._is_running:  # keep_edited composes too
            return
        KeepEdited._is_running = True
        try:
            for element in search_path.get_path():
                if element.provider == "main":
                    conf = Path(str(element.path).removeprefix("file://"))
                    if said := keep_edited(conf.parent / "params.yaml", conf=conf):
                        print(said, file=sys.stderr)
        except (UserError, OSError) as error:
            print(f"params.yaml: not compared with conf/: {error}", file=sys.stderr)
        finally:
            KeepEdited._is_running = False
