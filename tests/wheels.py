"""Wheels made by hand, so that pip installs something without network."""

import zipfile


def write_wheel(folder, name):
    """A package with a data file, which cannot be imported from within a zip file."""
    with zipfile.ZipFile(folder / f"{name}-1.0-py3-none-any.whl", "w") as wheel:
        wheel.writestr(
            f"{name}/__init__.py", "from pathlib import Path\nTEXT = (Path(__file__).parent / 't').read_text()"
        )
        wheel.writestr(f"{name}/t", "from the wheel")
        info = f"{name}-1.0.dist-info"
        wheel.writestr(
            f"{info}/METADATA", f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\nRequires-Dist: absent\n"
        )
        wheel.writestr(f"{info}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        wheel.writestr(f"{info}/RECORD", f"{name}/__init__.py,,\n{name}/t,,\n{info}/METADATA,,\n{info}/WHEEL,,\n")
