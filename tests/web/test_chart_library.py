"""The charting library that stands in the project is the published one and has its licence beside it."""

from __future__ import annotations

import hashlib

import pytest

from tests.rig import PROJECT

VENDOR = PROJECT / "web" / "static" / "vendor"
SHA256 = {  # of package/dist/ in https://registry.npmjs.org/uplot/-/uplot-1.6.32.tgz
    "uPlot.iife.min.js": "19c8d4c6ad88929a79f4ae49d6f7161566dfd0ba3d15cc495e974f787eb78f1f",
    "uPlot.min.css": "df630c6a8d6f8eeaff264b50f73ce5b114f646ffd9a0bb74f049b0a00135fa04",
}


@pytest.mark.parametrize("name", SHA256)
def test_it_is_the_published_file(name: str) -> None:
    assert hashlib.sha256((VENDOR / name).read_bytes()).hexdigest() == SHA256[name]
    assert SHA256[name] in (PROJECT / "docs" / "design.md").read_text(encoding="utf-8")


def test_nothing_else_is_in_its_folder_and_its_licence_is() -> None:
    assert {path.name for path in VENDOR.iterdir()} == {*SHA256, "LICENSE"}
    assert "MIT License" in (VENDOR / "LICENSE").read_text(encoding="utf-8")


def test_no_file_of_the_page_names_another_host_or_has_a_script_or_style_in_it() -> None:
    for path in (PROJECT / "web" / "static").glob("*.*"):
        text = path.read_text(encoding="utf-8").replace("http://www.w3.org/2000/svg", "")
        assert "://" not in text, path
    page = (PROJECT / "web" / "static" / "index.html").read_text(encoding="utf-8")
    assert "style=" not in page
    assert "<style" not in page
    assert page.count("<script") == page.count('<script src="static/')
