"""The log: one file beside config.cfg, the terminal or the journal if there is one, and no secret in any of them.

Set up by the main thread, written to by every thread. Guarantees: a line is ``time - logger - level - message`` with
local time and its UTC offset; what comes from outside cannot forge a line (control characters of a message are
escaped, tracebacks are indented); no log call raises into its caller, neither for a full or read-only disk nor for a
message that cannot be formatted; no handler set up here, its own error output included, shows a secret. It does not
keep the lines that could not be written.

A secret is hidden wherever it stands, also inside other text and in every usual encoding. A short word (4 to 7 letters
from a to z) is an exception: to hide "cloud" or "wrong" everywhere would cripple the log and tell what it is. It is
hidden where it stands as a value: after = or a colon without a blank, in quotes, alone on its line or at its end after
a colon; in base64; and, as any text of any length, where the name before it gives it away (``password=``, JSON,
headers, Redis's AUTH, an address). In a sentence it stays, and tells nobody that it is the password.
"""

from __future__ import annotations

import base64
import contextlib
import json
import logging
import logging.handlers
import os
import re
import sys
import threading
from collections import deque
from collections.abc import Iterable
from datetime import UTC, datetime
from pathlib import Path
from typing import TextIO

from journal import JournalHandler, is_journal

LOG_NAME = "PowerMonitorMiddleware.log"
LOG_BYTES = 10_000_000
LOG_BACKUPS = 5

_HIDDEN = "***"
_SHORTEST = 4  # a shorter secret is hidden only where a pattern gives it away: it is part of too many other words
SHORT_WORD = re.compile(r"[A-Za-z]{1,7}")  # such a secret occurs in ordinary lines
_LONGEST = 256  # of a longer one (a token) the beginning is looked for
_KEPT_ADDED = 16  # secrets added while running are tokens that replace each other

# As html.escape() does it; that module is large, and all of it but this is of no use here.
_HTML = str.maketrans({"&": "&amp;", "<": "&lt;", ">": "&gt;", '"': "&quot;", "'": "&#x27;"})
_WORD = r"(?:password|passwd|authpw|auth_pw|token)"
_VALUE = r"""(?:"(?:\\.|[^"\\])*"|'(?:\\.|[^'\\])*'|["'\\]\S*|[^\s&"']+)"""
# Where a text, {0}, stands as a value and not as a word of a sentence.
_VALUE_PLACES = (
    r"(?:(?<=[:=])|(?<== )|(?<=%3[Dd])|(?<=%253D)){0}(?!\w)",
    r"""(?<=["']){0}(?=\\*["'])""",
    r"(?:(?<=: )|^[ \t]*){0}(?=[ \t\r]*$)",
)
_GIVEAWAYS = (
    re.compile(rf"(?i)({_WORD}(?:\s*=\s*|%3D)){_VALUE}"),  # of an address, an assignment, a repr
    re.compile(rf"""(?i)({_WORD}\\?["']\s*:\s*){_VALUE}"""),  # of JSON, a dict
    re.compile(r"""(?i)(\bauthorization\\?["']?\s*[:=,]\s*\\?["']?(?:(?:basic|bearer|token)\s+)?)[^\s"']+"""),
    re.compile(r"""(\bBearer\s+)[^\s"']+"""),
    re.compile(r"""((?<![A-Z])AUTH(?:\\r\\n|[\s'",])+)\S+(?:\s+\S+)?"""),  # Redis: AUTH [user] password
    re.compile(r"(://[^\s/@:]*:)[^\s/@]+(?=@)"),  # scheme://user:password@host
)


def set_up_logging(folder: Path, *, level: int, secrets: Iterable[str], console: TextIO | None) -> SecretFilter:
    """Make the root logger write to the log file in ``folder`` and to ``console``; what it was set up to before ends.

    If stderr is the journal, the lines go there too, and to no console that would bring them there a second time.
    Opens nothing: the file is opened by the first line. If that fails, it is said once, on the console, in the journal
    or else on stderr, and tried again with every further line.
    """
    reset_logging()
    secret_filter = SecretFilter(secrets)
    others: list[logging.Handler] = [JournalHandler()] if is_journal() else []
    if console is not None and not (others and is_journal(console)):
        others.append(Console(console))
    notices = others[0] if others else Console(sys.stderr)
    file = LogFile(folder / LOG_NAME, notices=notices)
    for handler in (file, *others, notices):
        handler.addFilter(secret_filter)
        handler.setFormatter(LineFormatter())
    root = logging.getLogger()
    root.setLevel(level)
    for handler in (file, *others):
        root.addHandler(handler)
    return secret_filter


def reset_logging() -> None:
    """Remove and close the handlers of an earlier ``set_up_logging()``."""
    root = logging.getLogger()
    for handler in list(root.handlers):
        if any(isinstance(known, SecretFilter) for known in handler.filters):
            root.removeHandler(handler)
            with contextlib.suppress(OSError):  # a full disk: what is still in the buffer is lost
                handler.close()
    root.setLevel(logging.WARNING)


class SecretFilter(logging.Filter):
    """Replaces every secret in a record, whatever its spelling, before a handler sees it. Refuses no record.

    A record is changed once, for all handlers: message, arguments, exception and stack become cleaned text.
    """

    def __init__(self, secrets: Iterable[str]) -> None:
        super().__init__()
        self._lock = threading.Lock()
        self._added: deque[str] = deque(maxlen=_KEPT_ADDED)
        self._patterns: dict[str, re.Pattern[str]] = {}
        self._configured = tuple(secret for secret in secrets if len(secret) >= _SHORTEST)
        self._compile()

    def add(self, secret: str) -> None:
        """Hide one more secret from now on. The last 16 are remembered."""
        with self._lock:
            if len(secret) >= _SHORTEST and secret not in self._patterns:
                self._added.append(secret)
                self._compile()
                re.purge()  # else it keeps the patterns of the last 512 tokens, some 40 kB each

    def keep(self, secrets: Iterable[str]) -> None:
        """Hide these, too, from now on and for good: those of a configuration that was read again."""
        with self._lock:
            self._configured = (*self._configured, *(each for each in secrets if len(each) >= _SHORTEST))
            self._compile()

    def _compile(self) -> None:
        """Look for the longest first: another may be its beginning. Readers keep the mapping they have."""
        self._configured = tuple(dict.fromkeys(self._configured))
        known = sorted({*self._configured, *self._added}, key=len, reverse=True)
        self._patterns = {secret: self._patterns.get(secret) or _pattern_of(secret) for secret in known}

    def hide(self, text: str) -> str:
        """Return ``text`` without its secrets."""
        for pattern in self._patterns.values():
            text = pattern.sub(_HIDDEN, text)
        for giveaway in _GIVEAWAYS:
            text = giveaway.sub(rf"\1{_HIDDEN}", text)
        return text

    def filter(self, record: logging.LogRecord) -> bool:
        if record.__dict__.get("hidden_by") is not self:
            record.msg, record.args = _printable(self.hide(_message(record))), None
            if record.exc_info and not record.exc_text:
                record.exc_text = logging.Formatter().formatException(record.exc_info)
            record.exc_info = None  # another handler would format it again
            if record.exc_text:
                record.exc_text = self._block(record.exc_text)
            if record.stack_info:
                record.stack_info = self._block(record.stack_info)
            record.__dict__["hidden_by"] = self
        return True

    def _block(self, text: str) -> str:
        return "\n".join(_printable(line) for line in self.hide(text).split("\n"))


def _message(record: logging.LogRecord) -> str:
    try:
        return record.getMessage()
    except Exception as error:  # noqa: BLE001  (arguments are anybody's objects, and a log call must never raise)
        text = record.msg if isinstance(record.msg, str) else type(record.msg).__name__
        return f"{text} (this line cannot be formatted: {type(error).__name__})"


def _printable(text: str) -> str:
    return text if text.isprintable() else "".join(c if c.isprintable() else ascii(c)[1:-1] for c in text)


def _pattern_of(secret: str) -> re.Pattern[str]:
    """Return what finds a secret with each character raw, percent-encoded or escaped, and the whole of it in base64."""
    rest = r"\S*" if len(secret) > _LONGEST else ""
    secret = secret[:_LONGEST]
    cores = "|".join(_base64_cores(secret.encode("utf-8", "surrogatepass")))
    literal = "".join(map(_character, secret)) + rest
    if SHORT_WORD.fullmatch(secret):
        literal = "|".join(place.format(literal) for place in _VALUE_PLACES)
    return re.compile(rf"(?m:{literal})|[\w+/-]{{0,3}}(?:{cores})[\w+/=-]*")


def _character(char: str) -> str:
    raw = char.encode("utf-8", "surrogatepass")
    ways = {char, char.translate(_HTML), repr(char)[1:-1], ascii(char)[1:-1], json.dumps(char)[1:-1], repr(raw)[2:-1]}
    if char == " ":
        ways.add("+")
    if not char.isalnum():
        ways.add(f"\\{char}")
    escaped = (re.escape(way).replace(r"\\", r"\\{1,4}") for way in sorted(ways, key=len, reverse=True))
    percent = "".join(f"%(?:25)*{byte:02x}" for byte in raw)
    return f"(?:{'|'.join(escaped)}|(?i:{percent}))"


def _base64_cores(raw: bytes) -> list[str]:
    """Return what base64 makes of ``raw`` at each place of a group of three where it can begin, whatever is around."""
    cores = []
    for shift, first in enumerate((0, 2, 3)):
        padded = bytes(shift) + raw
        core = base64.b64encode(padded).decode()[first : len(padded) * 8 // 6]
        cores.append(re.escape(core).replace(r"\+", "[+-]").replace("/", "[/_]"))
    return cores


class LineFormatter(logging.Formatter):
    """``2026-11-24 10:05:41,123 +0000 - aretas_reporter - INFO - text``; further lines (tracebacks) are indented."""

    def __init__(self) -> None:
        super().__init__("%(asctime)s - %(name)s - %(levelname)s - %(message)s")

    def formatTime(self, record: logging.LogRecord, datefmt: str | None = None) -> str:  # noqa: N802  (logging's name)
        local = datetime.fromtimestamp(record.created, UTC).astimezone()
        return f"{local:%Y-%m-%d %H:%M:%S},{local.microsecond // 1000:03d} {local:%z}"

    def format(self, record: logging.LogRecord) -> str:
        return super().format(record).replace("\n", "\n    ")


class Console(logging.StreamHandler[TextIO]):
    """The terminal. When it is gone (closed, or ``| head`` has seen enough), nothing is written to it any more."""

    def handleError(self, record: logging.LogRecord) -> None:  # noqa: N802  (logging's name)
        if isinstance(sys.exc_info()[1], OSError):
            logging.getLogger().removeHandler(self)
        else:
            super().handleError(record)


class LogFile(logging.handlers.RotatingFileHandler):
    """The rotating file. While it cannot be written, lines are lost; ``notices`` is told when that begins and ends."""

    def __init__(self, path: Path, notices: logging.Handler) -> None:
        super().__init__(
            path, maxBytes=LOG_BYTES, backupCount=LOG_BACKUPS, encoding="utf-8", errors="backslashreplace", delay=True
        )
        self._notices = notices
        self._error: BaseException | None = None

    def emit(self, record: logging.LogRecord) -> None:
        before = self._error
        self._write(record)
        if self._error and not before:
            self._say(f"the log file {self.baseFilename} cannot be written ({self._error}); the daemon goes on without")
        elif before and not self._error:
            self._write(self._say(f"the log file is written again, lines are missing above ({before})"))

    def _write(self, record: logging.LogRecord) -> None:
        self._error = None
        if self.stream is not None and self._is_moved(self.stream.fileno()):
            self.close()  # to be opened afresh under its name
        super().emit(record)

    def _is_moved(self, descriptor: int) -> bool:
        """Return whether somebody has moved or deleted the file that is open."""
        try:
            there, opened = Path(self.baseFilename).stat(), os.fstat(descriptor)
        except OSError:
            return True
        return (there.st_dev, there.st_ino) != (opened.st_dev, opened.st_ino)

    def handleError(self, record: logging.LogRecord) -> None:  # noqa: N802  (logging's name)
        self._error = sys.exc_info()[1]
        with contextlib.suppress(OSError, ValueError):  # broken already, or closed in a rotation that failed
            self.close()  # the next line opens it afresh

    def doRollover(self) -> None:  # noqa: N802  (logging's name)
        try:
            super().doRollover()
        except OSError as error:
            what = f"the log file {self.baseFilename} cannot be rotated ({error})"
            if self.maxBytes < 2 * LOG_BYTES:
                if self.maxBytes == LOG_BYTES:
                    self._say(f"{what}; it grows to twice its size and is then emptied")
                self.maxBytes += LOG_BYTES // 10  # goes on in the same file, tries again a megabyte later
            else:
                self.maxBytes = LOG_BYTES
                if self.stream is None:
                    self.stream = self._open()
                self.stream.truncate(0)
                self._write(self._say(f"{what}; it was emptied, to stay bounded"))
        else:
            self.maxBytes = LOG_BYTES

    def _say(self, message: str) -> logging.LogRecord:
        level = logging.WARNING
        notice = {"name": __name__, "levelno": level, "levelname": logging.getLevelName(level), "msg": message}
        record = logging.makeLogRecord(notice)
        self._notices.handle(record)
        return record
