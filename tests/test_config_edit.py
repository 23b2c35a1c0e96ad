"""One value of config.cfg is changed, every other byte stays; whatever fails, the old file does."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from config_edit import NotStored, store_value, with_value
from tests.test_config_example import EXAMPLE

KEY = "xdm_current_zero_offset"


def changed(raw: bytes) -> bytes:
    return with_value(raw, "XDM", KEY, "-12.3")


@pytest.mark.parametrize(
    ("before", "after"),
    [
        (b"[XDM]\nxdm_current_zero_offset = 5\nx = 1\n", b"[XDM]\nxdm_current_zero_offset = -12.3\nx = 1\n"),
        (b"[XDM]\r\nXDM_Current_Zero_Offset:5\r\n", b"[XDM]\r\nxdm_current_zero_offset = -12.3\r\n"),
        (b"[XDM]\nxdm_current_zero_offset = 5", b"[XDM]\nxdm_current_zero_offset = -12.3"),
        (
            b"[XDM]\nx = 1\n# text\n;xdm_current_zero_offset = 0\n\n[API]\n",
            b"[XDM]\nx = 1\n# text\n;xdm_current_zero_offset = 0\nxdm_current_zero_offset = -12.3\n\n[API]\n",
        ),
        (b"[API]\n[XDM]\nx = 1\n", b"[API]\n[XDM]\nxdm_current_zero_offset = -12.3\nx = 1\n"),
        (b"\xef\xbb\xbf[XDM]\nx = 1\n", b"\xef\xbb\xbf[XDM]\nxdm_current_zero_offset = -12.3\nx = 1\n"),
        (
            b"[DEFAULT]\nxdm_current_zero_offset = 5\n[XDM]\nx = 1",
            b"[DEFAULT]\nxdm_current_zero_offset = 5\n[XDM]\nxdm_current_zero_offset = -12.3\nx = 1",
        ),
        (b"[DEFAULT]\r\nx = 1", b"[DEFAULT]\r\nx = 1\r\n[XDM]\r\nxdm_current_zero_offset = -12.3\r\n"),
        (b"[XDM]", b"[XDM]\nxdm_current_zero_offset = -12.3\n"),
        (b"", b"[XDM]\nxdm_current_zero_offset = -12.3\n"),
    ],
)
def test_the_value_stands_where_a_person_would_put_it(before: bytes, after: bytes) -> None:
    assert changed(before) == after


def test_in_the_example_it_stands_below_its_explanation_and_can_be_changed_again() -> None:
    once = changed(EXAMPLE.encode())
    assert once.decode() == EXAMPLE.replace(f";{KEY} = 0\n", f";{KEY} = 0\n{KEY} = -12.3\n")
    assert with_value(once, "XDM", KEY, "4.5") == once.replace(b"= -12.3\n", b"= 4.5\n")


@given(st.binary(max_size=200))
def test_whatever_is_in_the_file_every_other_byte_stays(tail: bytes) -> None:
    before = b"[XDM]\nxdm_current_zero_offset = 5\n"
    after = b"[XDM]\nxdm_current_zero_offset = -12.3\n"
    if b"[" not in tail and KEY.encode() not in tail.lower():
        assert changed(before + tail) == after + tail


def accept(_new: Path) -> None:
    return


def test_permissions_owner_and_link_stay_and_nothing_is_left_beside_it(tmp_path: Path) -> None:
    real = tmp_path / "real.cfg"
    real.write_bytes(b"[XDM]\n")
    real.chmod(0o640)
    was = real.stat()
    (tmp_path / "config.cfg").symlink_to(real)
    store_value(tmp_path / "config.cfg", "XDM", KEY, "-12.3", accept)
    assert (tmp_path / "config.cfg").is_symlink()
    assert real.read_bytes() == b"[XDM]\nxdm_current_zero_offset = -12.3\n"
    assert (real.stat().st_mode, real.stat().st_uid, real.stat().st_gid) == (was.st_mode, was.st_uid, was.st_gid)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["config.cfg", "real.cfg"]


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() != 0, reason="only root may give files away")
def test_a_file_of_another_user_stays_his_when_root_changes_it(tmp_path: Path) -> None:
    path = tmp_path / "config.cfg"
    path.write_bytes(b"[XDM]\n")
    path.chmod(0o600)
    os.chown(path, 12345, 12346)
    store_value(path, "XDM", KEY, "-12.3", accept)
    assert (path.stat().st_uid, path.stat().st_gid, path.stat().st_mode & 0o777) == (12345, 12346, 0o600)


def test_what_may_not_be_given_back_to_its_owner_is_left_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "config.cfg"
    path.write_bytes(b"[XDM]\n")
    if os.geteuid() == 0:
        os.chown(path, 12345, 12346)
    else:
        pytest.skip("needs a file of another user in a folder that one may write")

    def refuse(*_: object) -> None:
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr(os, "chown", refuse)
    with pytest.raises(NotStored, match="belongs to another user: run this as that user"):
        store_value(path, "XDM", KEY, "-12.3", accept)
    assert path.read_bytes() == b"[XDM]\n"
    assert [each.name for each in tmp_path.iterdir()] == ["config.cfg"]


def test_a_new_file_that_does_not_pass_the_check_never_counts(tmp_path: Path) -> None:
    path = tmp_path / "config.cfg"
    path.write_bytes(b"[XDM]\n")
    seen: list[bytes] = []

    def check(new: Path) -> None:
        seen.append(new.read_bytes())
        assert path.read_bytes() == b"[XDM]\n"
        raise NotStored("no")

    with pytest.raises(NotStored, match="no"):
        store_value(path, "XDM", KEY, "-12.3", check)
    assert seen == [b"[XDM]\nxdm_current_zero_offset = -12.3\n"]
    assert path.read_bytes() == b"[XDM]\n"
    assert [each.name for each in tmp_path.iterdir()] == ["config.cfg"]


def test_a_file_that_is_not_there_is_said_to_be_so(tmp_path: Path) -> None:
    with pytest.raises(NotStored, match="No such file"):
        store_value(tmp_path / "config.cfg", "XDM", KEY, "-12.3", accept)


def test_a_full_disk_leaves_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "config.cfg"
    path.write_bytes(b"[XDM]\n")

    def full(_descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(NotStored, match="No space left on device"):
        store_value(path, "XDM", KEY, "-12.3", accept)
    assert path.read_bytes() == b"[XDM]\n"
    assert [each.name for each in tmp_path.iterdir()] == ["config.cfg"]
