"""Where the passwords come from: the service manager, the environment, a file of their own, or config.cfg.

Runs in the main thread, once per reading of the configuration. Guarantees: the first source that is there counts, and
one that is there but of no use is a problem, not a reason to take the next; no message shows a password, nor the path
that somebody has put the password itself in the place of; nothing is waited for, whatever a path leads to. What the
sources that do not count hold is returned too, so that no log shows it.

The environment is left as it is: a reload reads it again, and the program starts no other program.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from config_file import ConfigFile, Problem
from config_values import EXAMPLES

CREDENTIAL = "credential"  # as the value of a key ..._FILE: the service manager passes it
_LARGEST_BYTES = 65_536


class Password(NamedTuple):
    """One password: its key in config.cfg, which is its name as a systemd credential too, and the other names."""

    key: str
    variable: str
    file_key: str
    file_variable: str
    needed: bool


API_PASSWORD = Password("API_PASSWORD", "API_PASSWORD", "API_PASSWORD_FILE", "API_PASSWORD_FILE", needed=True)
REDIS_PASSWORD = Password("redis_authpw", "REDIS_AUTHPW", "redis_authpw_file", "REDIS_AUTHPW_FILE", needed=False)
WEB_PASSWORD = Password("web_password", "WEB_PASSWORD", "web_password_file", "WEB_PASSWORD_FILE", needed=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Source:
    """A place outside config.cfg that has the password, or says that it has: then ``trouble`` tells what is wrong."""

    name: str
    text: str = ""
    trouble: str | None = None
    readable: Path | None = None  # by every user of this computer
    absent: bool = False  # only the service manager passes it, and it has not started this process


def take_password(file: ConfigFile, password: Password, folder: Path, *, used: bool, at_hand: bool) -> tuple[str, ...]:
    """Put the password that counts into the values of ``file``; return those of all sources.

    What is wrong is noted in ``file``, unless the password is not ``used`` at all. ``at_hand`` is False where it is
    good enough that the service manager will pass it: then the value is empty and a warning says so.
    """
    sources = list(_outside(password, folder, file.values[password.file_key]))
    written = [text for text in file.texts(password.key) if not (password.needed and text in EXAMPLES)]
    if sources:
        _take_from(sources[0], file, password, used=used, at_hand=at_hand)
        if written:
            file.warn(f"{password.key} is taken from {sources[0].name}; the one in config.cfg can be deleted")
    elif password.needed and password.key not in file.reported:
        _refuse_missing(file, password)
    for path in [source.readable for source in sources if source.readable]:
        file.warn(f"every user of this computer can read the password in {path}: run  chmod 600 {path}")
    return (*(source.text for source in sources if source.text), *written)


def _take_from(source: _Source, file: ConfigFile, password: Password, *, used: bool, at_hand: bool) -> None:
    file.values[password.key] = source.text
    if source.absent and not at_hand:
        if used:
            file.warn(f"{password.key} will come from the service manager (LoadCredential=), so it is not checked here")
    elif source.trouble is not None and used:
        file.problems.append(Problem(message=f"{source.name} {source.trouble}"))


def _refuse_missing(file: ConfigFile, password: Password) -> None:
    key = file.table.by_spelling[password.key.lower()]
    hint = (
        f". It may also be in a file of its own ({password.file_key} = its path), or be passed by the service "
        f"manager ({password.file_key} = {CREDENTIAL}): see Passwords in the README"
    )
    if file.values[key.name] is None:
        file.refuse(key.name, f"is missing: {key.help}{hint}")
    elif file.values[key.name] in EXAMPLES:
        file.refuse(key.name, f"is still the example's value: put in {key.help}{hint}", file.places[key.name])


def _outside(password: Password, folder: Path, configured: str | None) -> Iterator[_Source]:
    """Yield what there is outside config.cfg, that which counts first."""
    directory = os.environ.get("CREDENTIALS_DIRECTORY")
    name = f"the service's credential {password.key}"
    passed = bool(directory) and os.path.lexists(Path(directory or "", password.key))
    if directory and passed:
        yield _read(name, Path(directory, password.key))
    text = os.environ.get(password.variable)
    if text:
        yield _judged(f"the environment variable {password.variable}", text)
    path = os.environ.get(password.file_variable)
    if path:
        yield _read(f"the file that the environment variable {password.file_variable} names", folder / path)
    if configured == CREDENTIAL:
        if not passed:
            yield _Source(name=name, trouble="was not passed: see to LoadCredential= of the service", absent=True)
    elif configured:
        yield _read(f"the file that {password.file_key} in config.cfg names", folder / configured)


def _read(name: str, path: Path) -> _Source:
    """Return what a file holds. Nothing is waited for: only a plain file is read."""
    flags = os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_NOCTTY", 0) | getattr(os, "O_CLOEXEC", 0)
    try:
        descriptor = os.open(path, flags)
        try:
            with open(descriptor, "rb", closefd=False) as file:
                mode = os.fstat(descriptor).st_mode
                if not stat.S_ISREG(mode):
                    return _Source(name=name, trouble="is not a plain file")
                raw = file.read(_LARGEST_BYTES + 1)
        finally:
            os.close(descriptor)
    except FileNotFoundError:
        return _Source(name=name, trouble="does not exist: write its whole path, beginning with /")
    except (OSError, ValueError) as error:  # a ValueError would quote the path
        reason = error.strerror if isinstance(error, OSError) else "its path cannot be that of a file"
        return _Source(name=name, trouble=f"cannot be read ({reason}): check the path and its permissions")
    if len(raw) > _LARGEST_BYTES:
        return _Source(name=name, trouble="is larger than 64 KiB, which is no password")
    try:
        text = raw.decode("utf-8-sig")
    except UnicodeDecodeError:
        return _Source(name=name, trouble="is not UTF-8 text: save it again as UTF-8")
    everybody = path if os.name == "posix" and mode & 0o004 else None
    return _judged(name, text.removesuffix("\n").removesuffix("\r"), everybody)


def _judged(name: str, text: str, readable: Path | None = None) -> _Source:
    """Return the source with what is wrong with its text."""
    trouble = None
    if not text.strip():
        trouble = "is empty: put the password in"
    elif "\0" in text:
        trouble = "holds a NUL byte: save it again as UTF-8 text"
    elif "\n" in text or "\r" in text:
        trouble = "holds several lines: put in the password alone"
    elif len(text.encode("utf-8", "surrogatepass")) > _LARGEST_BYTES:
        trouble = "is larger than 64 KiB, which is no password"
    elif any("\ud800" <= c <= "\udfff" for c in text):
        trouble = "is not UTF-8 text"
    return _Source(name=name, text=text if trouble is None else "", trouble=trouble, readable=readable)
