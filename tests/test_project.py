"""Promises about the project as a whole: portability, and documents that say what is so."""

from __future__ import annotations

import ast
import os
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from config_keys import KEYS
from tests.rig import PROJECT, run_daemon

POSIX_ONLY = {"termios", "tty", "pty", "fcntl", "pwd", "grp", "resource", "posix", "syslog", "readline", "curses"}
DAEMON = [path for path in PROJECT.glob("*.py") if path.name != "conftest.py"] + [
    path for package in ("xdm1041", "aretas_api", "simulator", "web") for path in (PROJECT / package).glob("*.py")
]


def unguarded_imports(tree: ast.Module) -> Iterator[str]:
    """Yield the modules imported whenever the module itself is: not those below an ``if``, a ``try``, a ``def``."""
    for node in tree.body:
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.level == 0:
            yield str(node.module)


@pytest.mark.parametrize("path", DAEMON, ids=lambda path: str(path.relative_to(PROJECT)))
def test_no_unguarded_posix_import_and_no_sleep(path: Path) -> None:
    source = path.read_text(encoding="utf-8")
    assert not POSIX_ONLY.intersection(unguarded_imports(ast.parse(source)))
    assert "time.sleep" not in source


def test_the_readme_names_every_key() -> None:
    readme = (PROJECT / "README.md").read_text(encoding="utf-8")
    table = readme[readme.index("## Every setting") : readme.index("## Customizing")]
    for key in KEYS:
        assert f"`{key.name}`" in table, key.name


def test_the_readme_names_every_argument(tmp_path: Path) -> None:
    readme = (PROJECT / "README.md").read_text(encoding="utf-8")
    arguments = set(re.findall(r"--[a-z-]+", run_daemon(tmp_path, "--help").stdout))
    assert {argument for argument in arguments if argument not in readme} == set()


@pytest.mark.skipif(shutil.which("tar") is None, reason="needs tar")
def test_the_service_chapter_copies_the_whole_program_and_no_data(tmp_path: Path) -> None:
    """What is copied runs; what belongs to the operator is not copied, in an update neither."""
    source, target = tmp_path / "source", tmp_path / "target"
    operators = (
        "config.cfg",
        "PowerMonitorMiddleware.log",
        "power_monitor.db",
        "power_monitor.lock",
        ".venv/x",
        "demo/x",
    )
    target.mkdir()
    ignore = shutil.ignore_patterns(".*", "*.log*", "power_monitor.*", "config.cfg", "demo", "__pycache__")
    shutil.copytree(PROJECT, source, ignore=ignore)
    for name in operators:
        (source / name).parent.mkdir(exist_ok=True)
        (source / name).write_text("the operator's", encoding="utf-8")
    chapter = (PROJECT / "README.md").read_text(encoding="utf-8").split("## As a service\n")[1]
    command = re.findall(r"^tar .*\n.*$", chapter, re.MULTILINE)[0]
    command = command.replace("sudo ", "").replace("/opt/PowerMonitorMiddleware", shlex.quote(str(target)))
    subprocess.run(["sh", "-ec", command], cwd=source, check=True)
    assert [name for name in operators if (target / name).exists()] == []
    for path in DAEMON:
        assert (target / path.relative_to(PROJECT)).is_file(), path
    for arguments in (["--version"], ["--demo", "--seconds", "1"]):
        subprocess.run([sys.executable, str(target / "backend_daemon.py"), *arguments], cwd=tmp_path, check=True)


def test_every_test_that_the_fault_table_names_exists() -> None:
    table = (PROJECT / "docs" / "faults.md").read_text(encoding="utf-8")
    named = re.findall(r"`([\w/]+\.py|…)::(\w+)`", table)
    assert len(named) > 30
    file = ""
    for path, function in named:
        file = path if path != "…" else file
        assert f"def {function}(" in (PROJECT / "tests" / file).read_text(encoding="utf-8"), (file, function)


@pytest.mark.skipif(
    not (PROJECT / ".venv" / "installed-requirements.txt").exists(), reason="run.sh has not installed anything here"
)
def test_run_sh_starts_the_daemon_and_needs_no_network_the_second_time(tmp_path: Path) -> None:
    environment = {**os.environ, "PIP_INDEX_URL": "http://127.0.0.1:1/", "PIP_RETRIES": "0"}
    command = ["sh", str(PROJECT / "run.sh")]
    done = subprocess.run([*command, "--version"], cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith("PowerMonitorMiddleware ")
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert done.returncode == 78
    assert "copy config.cfg.example" in done.stderr
