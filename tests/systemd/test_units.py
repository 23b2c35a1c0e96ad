"""The two units are one, and the scripts about them can be read by every sh."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from tests.rig import PROJECT

SYSTEMD = PROJECT / "systemd"
SCRIPTS = [*SYSTEMD.glob("*.sh"), PROJECT / "tests" / "systemd" / "run.sh"]


def settings_of(unit: Path) -> list[str]:
    lines = unit.read_text(encoding="utf-8").splitlines()
    return [line for line in lines if line and not line.startswith("#")]


def test_the_template_is_the_unit_but_for_its_name_and_folder() -> None:
    plain = settings_of(SYSTEMD / "powermonitormiddleware.service")
    template = settings_of(SYSTEMD / "powermonitormiddleware@.service")
    assert [line.replace("powermonitor-%i", "powermonitor").replace(" %i:", ":") for line in template] == plain


def test_the_lines_to_edit_stand_together() -> None:
    lines = (SYSTEMD / "powermonitormiddleware.service").read_text(encoding="utf-8").splitlines()
    first = next(number for number, line in enumerate(lines) if line.startswith("# --- The lines you may edit"))
    names = [line.split("=")[0] for line in lines[first + 1 : first + 5]]
    assert names == ["User", "WorkingDirectory", "ReadWritePaths", "ExecStart"]
    assert lines[first + 5].startswith("# --- Below here")


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: path.name)
def test_a_script_is_read_by_sh(script: Path) -> None:
    done = subprocess.run(["sh", "-n", str(script)], capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.parametrize("script", ["install.sh", "uninstall.sh"])
@pytest.mark.parametrize(
    "arguments", [["--instance"], ["--instance", "../x"], ["--instance", "a b"], ["--force"], ["x"]]
)
def test_an_argument_that_cannot_be_meant_is_refused(script: str, arguments: list[str]) -> None:
    done = subprocess.run(["sh", str(SYSTEMD / script), *arguments], capture_output=True, text=True)
    assert done.returncode == 2
    assert done.stderr.startswith("usage: sudo sh systemd/")
