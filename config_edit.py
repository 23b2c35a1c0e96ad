"""Changes one value of config.cfg and leaves every other byte of it alone; a power cut leaves the old file or the new.

Used by the tools that store what they have measured, never by the running daemon. Guarantees: comments, order, line
ends, owner and permissions stay; the new content is checked before it takes the old one's place; if anything fails the
old file is untouched and nothing is left beside it.
"""

from __future__ import annotations

import os
import re
import tempfile
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

_LINE_END = re.compile(rb"[\r\n]*$")


class NotStored(Exception):
    """The file was not changed: do it by hand, or mend what the message says and try again.

    Examples: it belongs to another user, the folder may not be written, the disk is full.
    """


def store_value(path: Path, section: str, name: str, value: str, check: Callable[[Path], None]) -> None:
    """Set ``name = value`` in ``[section]`` of the file at ``path``. ``check`` is given the new file before it counts.

    Raises ``NotStored``, and what ``check`` raises.
    """
    try:
        path = path.resolve(strict=True)  # a link stays one
        raw = with_value(path.read_bytes(), section, name, value)
        handle, new_name = tempfile.mkstemp(prefix=f".{path.name}-", dir=path.parent)
    except OSError as exc:
        raise NotStored(f"{path} cannot be changed: {exc.strerror or exc}") from exc
    new = Path(new_name)
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(raw)
            file.flush()
            os.fsync(file.fileno())
        _take_after(path, new)
        check(new)
        new.replace(path)
        _sync_folder(path.parent)
    except OSError as exc:
        raise NotStored(f"{path} cannot be changed: {exc.strerror or exc}") from exc
    finally:
        with suppress(OSError):  # it is not there any more when all went well
            new.unlink(missing_ok=True)


def with_value(raw: bytes, section: str, name: str, value: str) -> bytes:
    """Return the content with ``name = value`` in ``[section]``.

    In place of the line that sets it, else below the line that shows it as a comment, else on top of the section, which
    is added at the end if there is none.
    """
    lines = raw.splitlines(keepends=True)
    line_end = next((end for line in lines if (end := _end_of(line))), b"\n")
    new = f"{name} = {value}".encode()
    header, shown, given = _places(lines, section.encode(), name.encode())
    if given is not None:
        lines[given] = new + _end_of(lines[given])
        return b"".join(lines)
    if header is None:
        header = len(lines)
        lines.append(b"[" + section.encode() + b"]")
    below = header if shown is None else shown
    for number in {below, max(0, header - 1)}:
        lines[number] += b"" if _end_of(lines[number]) else line_end
    lines.insert(below + 1, new + line_end)
    return b"".join(lines)


def _places(lines: list[bytes], section: bytes, name: bytes) -> tuple[int | None, int | None, int | None]:
    """Return the numbers of the section's header, of the line that shows the key, of the line that sets it."""
    header = shown = given = None
    sets = re.compile(rb"(?i)\s*" + re.escape(name) + rb"\s*[=:]")
    shows = re.compile(rb"(?i)\s*[;#]\s*" + re.escape(name) + rb"\s*[=:]")
    inside = False
    for number, line in enumerate(lines):
        if begins := re.match(rb"(?:\xef\xbb\xbf)?\s*\[([^\]]+)\]", line):
            inside = begins[1] == section
            header = number if inside and header is None else header
        elif inside and sets.match(line):
            given = number
        elif inside and shows.match(line):
            shown = number
    return header, shown, given


def _end_of(line: bytes) -> bytes:
    found = _LINE_END.search(line)
    return found[0] if found else b""


def _take_after(old: Path, new: Path) -> None:
    """Give the new file the permissions and the owner of the old one."""
    was, made = old.stat(), new.stat()
    if os.name == "posix" and (was.st_uid, was.st_gid) != (made.st_uid, made.st_gid):
        try:
            os.chown(new, was.st_uid, was.st_gid)
        except PermissionError as exc:
            raise NotStored(f"{old} belongs to another user: run this as that user (sudo -u)") from exc
    new.chmod(was.st_mode & 0o7777)


def _sync_folder(folder: Path) -> None:
    """Have the disk confirm the change of name, where a folder can be asked for that."""
    if os.name == "posix":
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
