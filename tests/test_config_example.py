"""config.cfg.example is the manual: filled in it works, and it has every key with its true default."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from config_file import ConfigurationError
from config_keys import KEYS
from settings import Settings, load_settings

EXAMPLE = (Path(__file__).parent.parent / "config.cfg.example").read_text(encoding="utf-8")
PLACEHOLDERS = {"= changeme": "= 123456789", "= username": "= jane", "= password": "= 100%&#+ sure"}
SETTING = re.compile(r"^(;?)(\w+) =(?: (.*))?$", re.MULTILINE)


def load(folder: Path, text: str) -> Settings:
    path = folder / "config.cfg"
    path.write_text(text, encoding="utf-8")
    path.chmod(0o600)
    return load_settings(path)


def filled_in() -> str:
    text = EXAMPLE
    for placeholder, value in PLACEHOLDERS.items():
        assert text.count(f"{placeholder}\n") == 1
        text = text.replace(f"{placeholder}\n", f"{value}\n")
    return text


def test_filled_in_it_is_valid_and_raises_no_warning(tmp_path: Path) -> None:
    got = load(tmp_path, filled_in())
    assert got.warnings == ()
    assert got.voltage_meter is not None
    assert got.current_meter is not None


def test_as_it_is_it_names_the_placeholders(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError) as caught:
        load(tmp_path, EXAMPLE)
    assert [problem.key for problem in caught.value.problems] == ["self_mac", "API_USERNAME", "API_PASSWORD"]
    assert str(caught.value).count("still the example's value") == 3


def test_it_has_every_key_once_and_in_its_section() -> None:
    found = []
    for block in re.split(r"^\[", EXAMPLE, flags=re.MULTILINE)[1:]:
        found += [(block.partition("]")[0], match[2]) for match in SETTING.finditer(block)]
    assert sorted(found) == sorted((key.section, key.name) for key in KEYS)


@pytest.mark.parametrize("key", KEYS, ids=lambda key: key.name)
def test_every_key_is_explained_with_its_default(key: object) -> None:
    name, default = key.name, key.default  # type: ignore[attr-defined]
    heading = re.search(rf"^# (?:\w+, )*{name}(?:, \w+)*(?: -- .*)?\n((?:#   .*\n)+)", EXAMPLE, re.MULTILINE)
    assert heading, f"{name} has no explanation"
    assert re.search(r"[Dd]efaults?\b", heading[1])
    if default is not None:
        assert re.search(rf"[Dd]efaults?: [^#]*\b{default}\b", heading[1].replace("\n#  ", "")), (
            f"{name}: not {default}"
        )


def test_the_settings_behind_a_semicolon_are_the_true_defaults(tmp_path: Path) -> None:
    text = filled_in().replace(";redis_enable = False", "redis_enable = True")
    shown = re.sub(r"^;(?=\w+ =)", "", text, flags=re.MULTILINE)
    assert shown.count("\n;") == 0
    bare, spelled_out = load(tmp_path, text), load(tmp_path, shown)
    assert repr(spelled_out).partition("warnings=")[0] == repr(bare).partition("warnings=")[0]
    assert (spelled_out.api, spelled_out.redis) == (bare.api, bare.redis)


def test_redis_is_off_by_default(tmp_path: Path) -> None:
    assert load(tmp_path, filled_in()).redis is None
