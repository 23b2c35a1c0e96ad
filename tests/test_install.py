"""The daemon installs from wheels alone, so without a compiler: on each Python that is promised, and on a Raspberry Pi.

These tests ask the package index; without one they are skipped. ``benchmarks/install.py`` measures an install's costs.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.rig import PROJECT
from tests.test_config_example import filled_in

PYTHONS = ("3.11", "3.12", "3.13")
PLATFORMS = {"64 bit": "manylinux2014_aarch64", "32 bit": "linux_armv7l"}  # for the latter pure Python is all there is
OF_AN_OLD_3_11 = "async-timeout>=4.0.3"  # redis-py wants it before 3.11.3, and Debian 12 has 3.11.2
WITHOUT_AN_INDEX = {"PIP_INDEX_URL": "http://127.0.0.1:1/", "PIP_EXTRA_INDEX_URL": "", "PIP_FIND_LINKS": ""}

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="run.sh and the wheels asked for are for Linux")


def candidates(version: str) -> Iterator[Path]:
    """Yield where a Python of this version may be: on PATH, or in pyenv's folder."""
    found = shutil.which(f"python{version}")
    if found:
        yield Path(found)
    pyenv = Path(os.environ.get("PYENV_ROOT") or Path.home() / ".pyenv")
    yield from sorted(pyenv.glob(f"versions/{version}.*/bin/python"))


def find_interpreter(version: str) -> Path | None:
    """Return a Python of this version that can make an environment, if there is one."""
    question = f"import ensurepip, sys; sys.exit(sys.version_info[:2] != ({version.replace('.', ',')}))"
    for candidate in candidates(version):
        if subprocess.run([candidate, "-c", question], capture_output=True).returncode == 0:
            return candidate
    return None


def copy_program(folder: Path) -> Path:
    """Copy what is needed to run into a new folder."""
    leave_out = shutil.ignore_patterns(".*", "*.log*", "power_monitor.*", "config.cfg", "__pycache__")
    not_run = {"tests", "benchmarks", "docs", "demo"}
    target = folder / "program"
    shutil.copytree(PROJECT, target, ignore=lambda path, names: leave_out(path, names) | not_run.intersection(names))
    return target


def run(folder: Path, *command: object, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run a command in a folder, pip limited to wheels and not patient."""
    return subprocess.run(
        [*map(str, command)],
        cwd=folder,
        env={**os.environ, "PIP_ONLY_BINARY": ":all:", "PIP_RETRIES": "1", "PIP_DEFAULT_TIMEOUT": "5", **environment},
        capture_output=True,
        text=True,
        timeout=28,
    )


def download(folder: Path, *what: str) -> subprocess.CompletedProcess[str]:
    return run(folder, sys.executable, "-m", "pip", "download", "--quiet", "--dest", folder / "wheels", *what)


def skip_without_an_index(folder: Path) -> None:
    """Tell a refused install from a machine that has no network."""
    if download(folder, "--no-deps", OF_AN_OLD_3_11).returncode != 0:
        pytest.skip("needs a package index: none can be reached")


@pytest.mark.parametrize("version", PYTHONS)
def test_run_sh_installs_it_from_wheels_alone_and_it_runs(tmp_path: Path, version: str) -> None:
    python = find_interpreter(version)
    if python is None:
        pytest.skip(f"no Python {version} with venv on this machine")
    program = copy_program(tmp_path)
    told = run(program, "sh", "run.sh", "--version", PYTHON=str(python))
    if told.returncode:
        skip_without_an_index(tmp_path)
    assert told.returncode == 0, told.stderr
    assert told.stdout.startswith("PowerMonitorMiddleware ")
    (program / "config.cfg").write_text(filled_in(), encoding="utf-8")
    (program / "config.cfg").chmod(0o600)
    told = run(program, "sh", "run.sh", "--check-config", **WITHOUT_AN_INDEX)
    assert (told.returncode, told.stderr) == (0, "")
    assert "is good" in told.stdout
    imports = f"import sys, backend_daemon, redis, serial; assert '{version}' == '%d.%d' % sys.version_info[:2]"
    told = run(program, ".venv/bin/python", "-W", "error", "-c", imports)
    assert (told.returncode, told.stderr) == (0, "")


def wheels(folder: Path, platform: str, version: str) -> list[str]:
    """Return the names of the wheels that a computer of another kind would install."""
    told = download(
        folder,
        *("--platform", platform, "--python-version", version, "--implementation", "cp"),
        *("--requirement", str(PROJECT / "requirements.txt"), OF_AN_OLD_3_11),
    )
    if told.returncode:
        skip_without_an_index(folder)
    assert told.returncode == 0, told.stderr
    return [path.name for path in (folder / "wheels").iterdir()]


@pytest.mark.parametrize("version", PYTHONS)
@pytest.mark.parametrize("kind", PLATFORMS)
def test_a_raspberry_pi_needs_no_compiler(tmp_path: Path, kind: str, version: str) -> None:
    names = wheels(tmp_path, PLATFORMS[kind], version)
    assert len(names) >= 4
    assert all(name.endswith(".whl") for name in names)
    if kind == "32 bit":
        assert all(name.endswith("-none-any.whl") for name in names)
