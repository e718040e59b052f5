"""`python -m benchmarks` lists the benchmarks, `python -m benchmarks NAME [OPTIONS]` runs one."""

from __future__ import annotations

import ast
import runpy
import sys
from pathlib import Path

HERE = Path(__file__).parent


def benchmarks() -> dict[str, str]:
    """Name -> the first line of its docstring."""
    found = {}
    for path in sorted(HERE.glob("[a-z]*.py")):
        found[path.stem] = (ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))) or "").splitlines()[0]
    return found


def main() -> None:
    known = benchmarks()
    if len(sys.argv) == 1 or sys.argv[1] in ("-h", "--help"):
        print("usage: python -m benchmarks NAME [OPTIONS]; NAME --help explains the options\n")
        print("\n".join(f"{name:<10} {what}" for name, what in known.items()))
        return
    name = sys.argv.pop(1)
    if name not in known:
        print(f"error: no benchmark '{name}'; there are {', '.join(known)}", file=sys.stderr)
        sys.exit(2)
    runpy.run_module(f"benchmarks.{name}", run_name="__main__")


if __name__ == "__main__":
    main()
