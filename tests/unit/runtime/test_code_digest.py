import pytest

from diffground.runtime.code_digest import code_digest

FILES = {
    "pack/__init__.py": "",
    "pack/work.py": '"""W."""\nfrom pack.inner import deep\nfrom .other import number\ndef f():\n    return number\n',
    "pack/other.py": "number = 3\n",
    "pack/inner/__init__.py": "",
    "pack/inner/deep.py": "def late():\n    from ..later import x\n    return x\n",
    "pack/later.py": "x = 1\n",
    "pack/unused.py": "y = 1\n",
}


@pytest.fixture
def digest(tmp_path):
    for name, text in FILES.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)

    def of(changed=None, text=""):
        if changed:
            (tmp_path / changed).write_text(text)
        code_digest.cache_clear()
        return code_digest("pack.work", root=tmp_path)

    return of


@pytest.mark.parametrize(
    ("changed", "text"),
    [
        ("pack/work.py", FILES["pack/work.py"].replace("return number", "return -number")),
        ("pack/other.py", "number = 4\n"),
        ("pack/inner/deep.py", FILES["pack/inner/deep.py"].replace("return x", "return x + 1")),
        ("pack/later.py", "x = 2\n"),
    ],
)
def test_code_that_is_imported_on_any_way_counts(digest, changed, text):
    assert digest() != digest(changed, text)


@pytest.mark.parametrize(
    ("changed", "text"),
    [
        ("pack/unused.py", "y = 2\n"),
        ("pack/other.py", '"""A number."""\n\nnumber = 3  # three\n"""The number."""\n'),
        ("pack/work.py", FILES["pack/work.py"].replace("    return", '    """What it does."""\n\n    return')),
    ],
)
def test_comments_docstrings_and_other_modules_do_not(digest, changed, text):
    assert digest() == digest(changed, text)


def test_of_this_package_and_of_a_script():
    assert code_digest("diffground.diffusion.generate") != code_digest("diffground.detection.oracle")
    assert code_digest("__main__") is None
