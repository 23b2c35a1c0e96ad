"""The form of config.cfg: sections, keys and values, read by a table of what there may be, every problem collected.

It knows no key by itself: ``settings.py`` has the table. Guarantees: whatever bytes are in the file, the outcome is a
``ConfigFile`` or a ``ConfigurationError``; no message shows a value that is or might be a secret.
"""

from __future__ import annotations

import configparser
import difflib
import io
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple


@dataclass(frozen=True, slots=True, kw_only=True)
class Problem:
    """One thing to correct. ``value`` is ``None`` where there is none, or where it is or might be a secret."""

    section: str | None = None
    key: str | None = None
    value: str | None = None
    message: str

    def __str__(self) -> str:
        place = f"[{_plain(self.section)}] " if self.section is not None else ""
        value = f" = {self.value[:80]!r}:" if self.value is not None else ""
        subject = f"{_plain(self.key)}{value} " if self.key is not None else ""
        return f"{place}{subject}{self.message}"


class ConfigurationError(Exception):
    """The daemon cannot start with this file: show ``str(error)`` to the operator and exit with 78.

    Examples: a key is misspelt, the shunt resistance is missing, there is no file. Starting again does not help.
    """

    def __init__(self, path: Path, problems: Iterable[Problem]) -> None:
        self.path = path
        self.problems = tuple(problems)
        count = "1 problem" if len(self.problems) == 1 else f"{len(self.problems)} problems"
        lines = [f"The configuration {path} has {count}:", *(f"  {problem}" for problem in self.problems)]
        super().__init__("\n".join([*lines, "Every key is explained in config.cfg.example."]))


class Key(NamedTuple):
    """One key of the file. ``default`` is text as in the file; ``None``: absent unless ``needed`` says otherwise."""

    section: str
    name: str
    parse: Callable[[str], Any]
    default: str | None
    help: str
    needed: Callable[[Mapping[str, Any]], bool] = lambda values: False
    secret: bool = False


class Table:
    """What a file may hold: its keys, their other spellings, and what is no longer used.

    ``aliases`` maps (section, spelling) to a key. The key's own name in another section is newer and wins; another
    name is older and loses.
    """

    def __init__(self, keys: Iterable[Key], aliases: Mapping[tuple[str, str], str], ignored: frozenset[str]) -> None:
        self.keys = tuple(keys)
        self.aliases = aliases
        self.ignored = ignored
        self.sections = tuple(dict.fromkeys([key.section for key in self.keys] + [section for section, _ in aliases]))

    def spellings(self, key: Key) -> list[tuple[str, str]]:
        """Return every (section, spelling) of a key, the one that wins first."""
        aliases = [place for place, name in self.aliases.items() if name == key.name]
        newer = [place for place in aliases if place[1] == key.name]
        older = [place for place in aliases if place[1] != key.name]
        own = [(key.section, key.name), ("DEFAULT", key.name)]
        return list(dict.fromkeys([*newer, *own, *older, *(("DEFAULT", name) for _, name in older)]))

    @cached_property
    def allowed(self) -> frozenset[tuple[str, str]]:
        """Every (section, spelling in small letters) that there may be."""
        return frozenset((section, name.lower()) for key in self.keys for section, name in self.spellings(key))

    @cached_property
    def by_spelling(self) -> dict[str, Key]:
        """The key of every spelling in small letters."""
        return {name.lower(): key for key in self.keys for _, name in self.spellings(key)}


def read_config_file(path: Path, table: Table) -> ConfigFile:
    """Read the file at ``path`` and check each key. Raise ``ConfigurationError`` if it cannot be read at all."""
    try:
        if path.is_fifo():  # to be read it would be waited for
            raise ConfigurationError(path, [Problem(message="is no file but a pipe: check the path")])
        raw = path.read_bytes()
    except FileNotFoundError:
        message = f"does not exist: copy config.cfg.example to {path} and fill it in"
        raise ConfigurationError(path, [Problem(message=message)]) from None
    except OSError as error:
        message = f"cannot be read ({error.strerror or error}): check the path and its permissions"
        raise ConfigurationError(path, [Problem(message=message)]) from None
    file = ConfigFile(table, *_parse(_decode(path, raw)))
    file.names()
    file.each_value()
    return file


def _decode(path: Path, raw: bytes) -> list[str]:
    bad_at, what = raw.find(b"\0"), "holds a NUL byte: save the file again as UTF-8 text"
    if bad_at < 0:
        try:
            return io.StringIO(raw.decode("utf-8-sig"), newline=None).read().split("\n")
        except UnicodeDecodeError as error:
            bad_at, what = error.start, "is not UTF-8 text: save the file again as UTF-8"
    line = raw.count(b"\n", 0, bad_at) + 1
    raise ConfigurationError(path, [Problem(message=f"line {line} {what}")])


def _parse(lines: list[str]) -> tuple[dict[str, dict[str, str]], list[Problem]]:
    """Return the sections and what is wrong with the form. A wrong line is noted and mended, then all is read again."""
    lines = ["", *lines]  # lines[n] is line n, and there is room for a header above the first
    problems: list[Problem] = []
    while True:
        parser = configparser.ConfigParser(interpolation=None, default_section="\n")  # no file can name that section
        try:
            parser.read_file(lines)
            break
        except configparser.MissingSectionHeaderError as error:
            line = error.lineno - 1
            lines[line - 1] = "[DEFAULT\r]"  # no \r is left in a file: this can be told from what is written there
            problems.append(Problem(message=f"line {line} stands before the first [section]: put [DEFAULT] above it"))
        except configparser.DuplicateSectionError as error:
            line = (error.lineno or 0) - 1
            lines[line] = f"[{error.section}\r{line}]"
            problems.append(Problem(section=error.section, message=f"stands a second time on line {line}: join them"))
        except configparser.DuplicateOptionError as error:
            line = (error.lineno or 0) - 1
            lines[line] = ""
            section, message = error.section.partition("\r")[0], f"stands a second time on line {line}: delete one"
            problems.append(Problem(section=section, key=error.option, message=message))
        except configparser.ParsingError as error:
            for number, _ in error.errors:
                lines[number - 1] = ""
                message = f"line {number - 1} is neither a [section], nor key = value, nor a # comment"
                problems.append(Problem(message=message))
    sections: dict[str, dict[str, str]] = {}
    for name in parser.sections():
        original = name.partition("\r")[0]
        sections[original] = dict(parser.items(name)) | sections.get(original, {})
    return sections, problems


class ConfigFile:
    """One file and what is wrong with it. ``values`` has ``None`` where there is no valid value."""

    def __init__(self, table: Table, sections: dict[str, dict[str, str]], problems: list[Problem]) -> None:
        self.table = table
        self.sections = sections
        self.problems = problems
        self.warnings: list[str] = []
        self.values: dict[str, Any] = {}
        self.places: dict[str, tuple[str, str]] = {}  # section and spelling of what counts
        self.reported: set[str] = set()  # keys whose problem is known: that they have no value is not a second one

    def warn(self, warning: str) -> None:
        """Note what the operator should look at, although the daemon can work with it."""
        self.warnings.append(warning)

    def refuse(self, name: str, message: str, place: tuple[str, str] | None = None, value: str | None = None) -> None:
        """Note a problem of the key ``name``, at its own place unless another is given."""
        section, spelling = place or (self.table.by_spelling[name.lower()].section, name)
        self.reported.add(name)
        self.problems.append(Problem(section=section, key=spelling, value=value, message=message))

    def names(self) -> None:
        """Report unknown sections and keys. A section whose name is nearly right is read as the one that is meant."""
        for section in [name for name in self.sections if name not in self.table.sections]:
            meant = _closest(section, self.table.sections)
            hint = f"did you mean [{meant}]?" if meant else f"there are [{'], ['.join(self.table.sections)}]"
            self.problems.append(Problem(section=section, message=f"is no known section: {hint}"))
            keys = self.sections.pop(section)
            if meant:
                self.sections[meant] = keys | self.sections.get(meant, {})
        given = [(section, name) for section, keys in self.sections.items() for name in keys]
        for section, name in given:
            if (section, name) not in self.table.allowed and name not in self.table.ignored:
                self._unknown(section, name)
        ignored = sorted({name for _, name in given} & self.table.ignored)
        if ignored:
            self.warn(f"no longer used, delete at will: {', '.join(ignored)}")

    def _unknown(self, section: str, name: str) -> None:
        near = _closest(name, self.table.by_spelling)
        if near is None:
            self.problems.append(Problem(section=section, key=name, message="is no known key"))
            return
        key = self.table.by_spelling[near]
        known = near == name
        message = (
            f"belongs in [{key.section}]" if known else f"is no known key: did you mean {key.name} in [{key.section}]?"
        )
        self.refuse(key.name, message, (section, name))

    def each_value(self) -> None:
        """Read every key of the table, its default where the file has none; report what is wrong or missing."""
        for key in self.table.keys:
            section, name, text = self._find(key)
            self.places[key.name] = (section, name)
            self.values[key.name] = None if text is None else self._value(key, (section, name), text)
        for key in self.table.keys:
            if self.values[key.name] is None and key.name not in self.reported and key.needed(self.values):
                self.refuse(key.name, f"is missing: {key.help}")

    def texts(self, name: str) -> tuple[str, ...]:
        """Return all that the file has under any spelling of a key, also what does not count."""
        places = self.table.spellings(self.table.by_spelling[name.lower()])
        texts = (self.sections.get(section, {}).get(spelling.lower()) for section, spelling in places)
        return tuple(dict.fromkeys(text for text in texts if text))

    def _find(self, key: Key) -> tuple[str, str, str | None]:
        """Return section, spelling and text of what counts. Empty is absent for a key without a default."""
        texts = [(*place, self.sections.get(place[0], {}).get(place[1].lower())) for place in self.table.spellings(key)]
        given = [found for found in texts if found[2] or (found[2] is not None and key.default is not None)]
        for section, name, _ in given:
            if name != key.name:
                self.warn(f"[{section}] {name} is the old name of {key.name}: it still works, please rename it")
        if len({text for _, _, text in given}) > 1:
            section, name, _ = given[0]
            self.warn(f"{key.name} is given more than once, and differently: [{section}] {name} counts")
        return given[0] if given else (key.section, key.name, key.default)

    def _value(self, key: Key, place: tuple[str, str], text: str) -> Any:
        several_lines = "\n" in text
        try:
            if not text:
                raise ValueError("is empty")
            if several_lines:
                raise ValueError("runs over several lines: a line that begins with a blank continues the one above")
            return key.parse(text)
        except ValueError as error:
            # Never shown: a secret, what may hold the key below it, and an address that may hold a password.
            hidden = key.secret or several_lines or "@" in text or "?" in text
            comment = re.search(r"\s[#;]", text) and not hidden
            message = f"{error}{'; a comment needs a line of its own' if comment else ''}"
            self.refuse(key.name, message, place, None if hidden else text)
            return None


def _closest(word: str, known: Iterable[str]) -> str | None:
    by_lower = {name.lower(): name for name in known}
    return next((by_lower[near] for near in difflib.get_close_matches(word.lower(), by_lower, n=1)), None)


def _plain(text: str) -> str:
    """Return text of the file for one line of a report: control characters escaped, not too long."""
    return "".join(c if c.isprintable() else repr(c)[1:-1] for c in text[:80]) + ("..." if len(text) > 80 else "")
