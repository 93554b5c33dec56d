"""The map of the code leads to files that are there, and its picture shows the package as it is."""

import re

from conftest import REPOSITORY
from PIL import Image

DOCS = REPOSITORY / "docs"
MAP = (DOCS / "map.md").read_text(encoding="utf-8")
IN_DATA = ("sources", "shards", "utterance", "batches", "augment", "effects", "named", "mixing")
PLACES = (REPOSITORY / "tiny_asr", REPOSITORY)


def test_every_file_and_folder_that_the_map_names_is_there():
    named = set(re.findall(r"`((?:[\w]+/)*\w+\.(?:py|toml|txt)|(?:\w+/)+)`", MAP))
    assert len(named) > 25
    in_data = {f"{name}.py" for name in IN_DATA}
    made = {name for name in named if name.startswith("runs/")}
    for name in named - in_data - made:  # the map says `data/` before the first
        pattern = name.replace("0N", "0?")
        assert any(list(place.glob(pattern.rstrip("/"))) for place in PLACES), name


def test_every_function_that_the_map_names_is_in_its_file():
    for file, names in re.findall(r"`([\w/]+\.py)`: ((?:`\w+`(?:, )?)+)", MAP):
        source = (REPOSITORY / "tiny_asr" / file).read_text(encoding="utf-8")
        for name in re.findall(r"`(\w+)`", names):
            assert f"def {name}(" in source, (file, name)


def test_the_picture_shows_each_file_of_the_sounds_path_and_each_wing():
    told = Image.open(DOCS / "images" / "map.png").info["Description"]
    wings = {path.parent.name for path in (REPOSITORY / "tiny_asr").glob("*/__init__.py")}
    assert wings == set(re.findall(r"(\w+)/ takes from", told))
    count = len([p for p in (REPOSITORY / "tiny_asr").glob("*.py") if p.stem != "__init__"])
    assert f"the path of the sound, {count} files" in told, "run docs/images/map.py again"
