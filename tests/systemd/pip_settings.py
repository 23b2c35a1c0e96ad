"""Prints all that pip is told on this machine, by files and by environment, as one pip.conf for the container."""

from __future__ import annotations

import configparser
import os
import sys
from pathlib import Path


def main() -> None:
    """Print the settings that pip goes by here, in one section."""
    settings: dict[str, str] = {}
    homes = (Path("/etc/pip.conf"), Path.home() / ".pip/pip.conf", Path.home() / ".config/pip/pip.conf")
    for path in (*homes, Path(os.environ.get("PIP_CONFIG_FILE", os.devnull))):
        file = configparser.RawConfigParser()
        file.read(path, encoding="utf-8")
        if file.has_section("global"):
            settings.update(file.items("global"))
    for name, value in os.environ.items():
        if name.startswith("PIP_") and name != "PIP_CONFIG_FILE":
            settings[name.removeprefix("PIP_").lower().replace("_", "-")] = value
    merged = configparser.RawConfigParser()
    merged["global"] = {name: " ".join(value.split()) for name, value in settings.items()}
    merged.write(sys.stdout)


if __name__ == "__main__":
    main()
