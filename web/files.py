"""The files of the page. Which there are is found out once, so that no text of a request ever becomes a path."""

from __future__ import annotations

import hashlib
import os
from dataclasses import dataclass
from pathlib import Path

_TYPES = {
    ".html": "text/html; charset=utf-8",
    ".css": "text/css; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".svg": "image/svg+xml",
    ".png": "image/png",
    ".ico": "image/x-icon",
    ".webmanifest": "application/manifest+json",
    "": "text/plain; charset=utf-8",
    ".txt": "text/plain; charset=utf-8",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class File:
    """A file: what it holds, of which kind, and a tag that changes with it."""

    content: bytes
    content_type: str
    tag: str


class StaticFiles:
    """The plain files of a folder, by their names in it: not what a link leads to, nor what begins with a dot."""

    def __init__(self, folder: Path) -> None:
        self._paths = {
            path.relative_to(folder).as_posix(): path
            for path in _plain_files(folder)
            if path.suffix in _TYPES and not any(part.startswith(".") for part in path.relative_to(folder).parts)
        }

    def read(self, name: str) -> File | None:
        """Return a file, ``None`` if there is none of this name."""
        path = self._paths.get(name)
        if path is None:
            return None
        try:
            content = path.read_bytes()
        except OSError:  # it was there when the program started: an update replaces it just now
            return None
        tag = f'"{hashlib.sha256(content).hexdigest()[:16]}"'
        return File(content=content, content_type=_TYPES[path.suffix], tag=tag)


def _plain_files(folder: Path) -> list[Path]:
    return [
        Path(where, name)
        for where, _folders, names in os.walk(folder, followlinks=False)
        for name in names
        if not Path(where, name).is_symlink()
    ]
