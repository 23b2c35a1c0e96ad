"""What simulator/demo.py promises: a configuration that loads, or one sentence that says why not and what to do."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from settings import load_settings
from simulator import demo
from simulator.demo import Demo, DemoError


def test_it_writes_a_configuration_that_is_good_and_readable_by_its_user_only(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with Demo(Path("demo")) as running:
        assert running.config == tmp_path / "demo" / "config.cfg"
        assert load_settings(running.config).warnings == ()
    with Demo(tmp_path / "demo") as again:
        load_settings(again.config)


def refusal(folder: Path) -> str:
    with pytest.raises(DemoError) as caught, Demo(folder):
        pass
    assert "run it in a folder that you may write" in str(caught.value)
    return str(caught.value)


def test_a_file_in_place_of_the_folder(tmp_path: Path) -> None:
    (tmp_path / "demo").touch()
    assert f"{tmp_path / 'demo' / 'config.cfg'} cannot be written (File exists)" in refusal(tmp_path / "demo")


def test_a_folder_in_place_of_the_file(tmp_path: Path) -> None:
    (tmp_path / "config.cfg").mkdir()
    assert str(tmp_path / "config.cfg") in refusal(tmp_path)


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="root may write everywhere")
@pytest.mark.parametrize("what", ["folder", "file"])
def test_what_may_not_be_written(tmp_path: Path, what: str) -> None:
    config = tmp_path / "config.cfg"
    if what == "file":
        config.touch(mode=0o400)
    else:
        tmp_path.chmod(0o500)
    assert f"{config} cannot be written (Permission denied)" in refusal(tmp_path)


@pytest.mark.skipif(os.name != "posix", reason="elsewhere the working directory cannot be deleted")
def test_a_working_directory_that_was_deleted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "gone").mkdir()
    monkeypatch.chdir(tmp_path / "gone")
    (tmp_path / "gone").rmdir()
    assert "demo/config.cfg cannot be written (No such file or directory)" in refusal(Path("demo"))


def test_ports_that_cannot_be_had(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def none_left(*_: object) -> None:
        raise OSError("out of pty devices")

    monkeypatch.setattr(demo, "make_port", none_left)
    with (
        pytest.raises(DemoError, match="no simulated meter or cloud can be made here: out of pty devices"),
        Demo(tmp_path),
    ):
        pass
    assert list(tmp_path.iterdir()) == []
