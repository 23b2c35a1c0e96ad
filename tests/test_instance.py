"""One daemon per folder: a tool that only asks does not keep it from starting, another daemon does."""

from __future__ import annotations

import os
import pty
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from clock import Clock
from instance import HeldByAnother, InstanceLock, holders, running_daemon


def test_a_daemon_waits_for_whoever_holds_the_lock_for_an_instant(tmp_path: Path) -> None:
    asking, starting = InstanceLock(tmp_path), InstanceLock(tmp_path)
    asking.acquire([])
    threading.Timer(0.1, asking.release).start()
    starting.acquire([])
    assert running_daemon(tmp_path) is not None
    starting.release()
    assert running_daemon(tmp_path) is None


def test_another_daemon_keeps_the_lock(tmp_path: Path) -> None:
    clock, first, second = Clock(), InstanceLock(tmp_path), InstanceLock(tmp_path)
    first.acquire([])
    began_mono_s = clock.mono_s()
    with pytest.raises(HeldByAnother, match="already runs"):
        second.acquire([])
    assert clock.mono_s() - began_mono_s < 5.0
    first.release()


def test_who_has_a_port_is_told_by_the_device_and_not_by_its_name(tmp_path: Path) -> None:
    ours, its = pty.openpty()
    other_name = tmp_path / "meter"
    other_name.symlink_to(os.ttyname(its))
    program = f"import sys; port = open({str(other_name)!r}); print(flush=True); sys.stdin.read()"
    with subprocess.Popen(
        [sys.executable, "-c", program], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        process.stdout.readline()
        assert [each.process for each in holders(os.ttyname(its))] == [process.pid]
        assert [each.process for each in holders(str(other_name))] == [process.pid]
        process.communicate()
    assert not list(holders(str(other_name)))
    assert not list(holders(str(tmp_path / "absent")))
    os.close(its)
    os.close(ours)


@pytest.mark.skipif(os.name != "posix" or os.geteuid() != 0, reason="only root can make a second set of terminals")
def test_a_terminal_of_a_container_is_not_ours_though_it_has_its_name(tmp_path: Path) -> None:
    ours, its = pty.openpty()
    script = (
        "mount -t devpts -o newinstance,ptmxmode=0666 devpts /dev/pts && mount --bind /dev/pts/ptmx /dev/ptmx"
        " || exit 9;"
        f'exec "{sys.executable}" -c "import os, pty, sys\n'
        f"its = ['']\nwhile its[-1] != '{os.ttyname(its)}': its.append(os.ttyname(pty.openpty()[1]))\n"
        'print(flush=True); sys.stdin.read()"'
    )
    with subprocess.Popen(
        ["unshare", "--mount", "sh", "-c", script], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        process.stdout.readline()
        if process.poll() == 9:
            pytest.skip("no second set of terminals can be made here")
        assert process.poll() is None
        assert process.pid not in [each.process for each in holders(os.ttyname(its))]
        process.communicate()
    os.close(its)
    os.close(ours)
