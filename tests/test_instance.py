"""One daemon per folder: a tool that only asks does not keep it from starting, another daemon does."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest

from clock import Clock
from instance import HeldByAnother, InstanceLock, running_daemon


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
