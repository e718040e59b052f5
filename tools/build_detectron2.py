"""Build detectron2 and the authors' MaskFormer into a virtual environment of their own: `make detectron2 SOURCES=…`.

    python tools/build_detectron2.py VENV SOURCE [SOURCE …]

Run it with the Python of the project's environment, whose packages the new one sees as well. A source is a folder that
holds the archives of both, an archive (.tar.gz, .zip), an unpacked source tree, or the URL of an archive; one for each
of the two. It takes 2 to 10 minutes on two cores. A second call with the same sources does nothing.

The licence of MaskFormer (CC BY-NC 4.0) forbids commercial use. Nothing of either is copied into the project.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
import sys
import sysconfig
import tarfile
import urllib.request
from pathlib import Path
from urllib.error import URLError
from urllib.parse import urlparse

REQUIREMENTS = Path(__file__).with_name("detectron2-requirements.txt")
MARKS = {"detectron2": "detectron2/modeling/meta_arch/rcnn.py", "MaskFormer": "mask_former/mask_former_model.py"}
"""Package -> a file that its source tree has."""
ARCHIVES = (".tar.gz", ".tgz", ".zip")
CHECK = "import detectron2._C, mask_former"


class BuildError(Exception):
    """One line for the user."""


def main(arguments: list[str]) -> int:
    if len(arguments) < 2:
        print(
            "error: name the sources: make detectron2 SOURCES=DIR, or SOURCES='URL URL', see docs/detectron2.md",
            file=sys.stderr,
        )
        return 2
    try:
        build(Path(arguments[0]).absolute(), arguments[1:])
    except BuildError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except subprocess.CalledProcessError as error:
        print(f"error: '{' '.join(map(str, error.cmd))}' ended with {error.returncode}", file=sys.stderr)
        return 1
    return 0


def build(venv: Path, sources: list[str]) -> None:
    """Raises: BuildError for sources that are missing, CalledProcessError for a step that failed."""
    stamp, python = venv / "built.json", venv / "bin" / "python"
    downloads = venv / "downloads"
    files = [
        fetch(source, downloads) if urlparse(source).scheme in ("http", "https") else Path(source) for source in sources
    ]
    found = find_sources(files)
    built = {name: digest(path) for name, path in found.items()}
    if stamp.is_file() and json.loads(stamp.read_text()) == built:
        print(f"{venv}: built already, from these sources")
        return
    stamp.unlink(missing_ok=True)
    subprocess.run([sys.executable, "-m", "venv", venv], check=True)
    packages = Path(capture(python, "import sysconfig; print(sysconfig.get_path('purelib'))"))
    # its own packages come first; addsitedir also reads the .pth files there, the project's among them
    own = sysconfig.get_path("purelib")
    (packages / "project.pth").write_text(f"import site; site.addsitedir({own!r})\n")
    trees = {name: unpack(path, venv / "src" / name, name) for name, path in found.items()}
    pip = [str(python), "-m", "pip", "install", "--quiet", "--no-deps"]
    subprocess.run([*pip, "-r", str(REQUIREMENTS)], check=True)
    print("compiling detectron2, 2 to 10 minutes", flush=True)
    compiled = {**os.environ, "MAX_JOBS": os.environ.get("MAX_JOBS", str(min(4, os.cpu_count() or 1)))}
    subprocess.run([*pip, "--no-build-isolation", str(trees["detectron2"])], check=True, env=compiled)
    (packages / "mask_former.pth").write_text(f"{trees['MaskFormer']}\n")
    subprocess.run([python, "-c", CHECK], check=True, cwd=venv)
    stamp.write_text(json.dumps(built, indent=2) + "\n")
    print(f"{venv}: detectron2 and mask_former can be imported")


def find_sources(paths: list[Path]) -> dict[str, Path]:
    """Package -> archive or source tree, of these or of the folders among them.

    Raises: BuildError for a path that is missing, and when there is none or several of a package.
    """
    candidates: list[Path] = []
    for path in paths:
        if not path.exists():
            raise BuildError(
                f"{path}: no such file or folder; give a folder with the archives of {' and '.join(MARKS)}"
            )
        is_tree = path.is_file() or any((path / mark).is_file() for mark in MARKS.values())
        candidates += [path] if is_tree else sorted(path.iterdir())
    found: dict[str, Path] = {}
    for path in candidates:
        name = package_of(path)
        if name in found:
            raise BuildError(f"{path}: a second source of {name}, after {found[name]}; give one")
        if name:
            found[name] = path
    missing = [name for name in MARKS if name not in found]
    if missing:
        where = ", ".join(map(str, paths))
        raise BuildError(
            f"{where}: no archive ({', '.join(ARCHIVES)}) or source tree of {' and '.join(missing)}; add it"
        )
    return {name: found[name] for name in MARKS}


def package_of(path: Path) -> str | None:
    """The package whose sources `path` holds, by the files in it; None for anything else."""
    if path.is_dir():
        return next((name for name, mark in MARKS.items() if (path / mark).is_file()), None)
    if not path.name.endswith(ARCHIVES):
        return None
    names = members(path)
    return next((name for name, mark in MARKS.items() if any(f"/{n}".endswith(f"/{mark}") for n in names)), None)


def members(archive: Path) -> list[str]:
    """Raises: BuildError for a file that is no archive."""
    import tarfile
    import zipfile

    try:
        if archive.suffix == ".zip":
            with zipfile.ZipFile(archive) as opened:
                return opened.namelist()
        with tarfile.open(archive) as opened_tar:
            return opened_tar.getnames()
    except (OSError, EOFError, tarfile.TarError, zipfile.BadZipFile):
        raise BuildError(f"{archive}: not an archive, or cut off; fetch it again") from None


def unpack(source: Path, folder: Path, name: str) -> Path:
    """A copy of the source tree below `folder`; its path. Whatever lay there is deleted."""
    shutil.rmtree(folder, ignore_errors=True)
    if source.is_dir():
        shutil.copytree(source, folder, ignore=shutil.ignore_patterns(".git", "build"))
    elif source.suffix == ".zip":
        shutil.unpack_archive(source, folder)
    else:
        # "data" refuses members outside of `folder`; Python before 3.11.4 does not know it
        if hasattr(tarfile, "data_filter"):
            shutil.unpack_archive(source, folder, filter="data")
        else:
            shutil.unpack_archive(source, folder)
    mark = Path(MARKS[name])
    above = len(mark.parts) - 1
    return next(file.parents[above] for file in folder.rglob(mark.name) if file.parts[-above - 1 :] == mark.parts)


def fetch(url: str, folder: Path) -> Path:
    """Download an archive once, whole or not at all. Raises: BuildError."""
    name = hashlib.sha256(url.encode()).hexdigest()[:12] + "-" + Path(urlparse(url).path).name
    if not name.endswith(ARCHIVES):
        raise BuildError(f"{url}: must end in {', '.join(ARCHIVES)}; give the URL of an archive")
    file = folder / name
    if not file.is_file():
        folder.mkdir(parents=True, exist_ok=True)
        print(f"downloading {url}", flush=True)
        partial = file.with_name(f"{name}.partial")
        try:
            with urllib.request.urlopen(url, timeout=60) as response, partial.open("wb") as stream:
                shutil.copyfileobj(response, stream)
        except (URLError, OSError) as error:
            raise BuildError(
                f"{url}: cannot be downloaded ({error}); download it yourself and name its folder"
            ) from None
        partial.replace(file)
    return file


def digest(path: Path) -> str:
    """SHA-256 of an archive; of a source tree its path, since its files are not compared."""
    if path.is_dir():
        return f"tree {path.resolve()}"
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def capture(python: Path, code: str) -> str:
    return subprocess.run([python, "-c", code], check=True, capture_output=True, text=True).stdout.strip()


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
