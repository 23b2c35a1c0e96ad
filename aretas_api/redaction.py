"""The ways in which a secret may turn up in a text, so that it can be taken out. Pure functions.

Guarantees: finds a secret as it is, percent-encoded (any choice of unreserved characters that Python's own encoders
make, either case of the digits), in JSON and in HTML. Does not find it cut in two, or encoded otherwise (base64).
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from urllib.parse import quote, quote_plus

HIDDEN = "***"
# As html.escape() does it; that module is large, and all of it but this is of no use here.
_HTML = str.maketrans({"&": "&amp;", "<": "&lt;", ">": "&gt;", '"': "&quot;", "'": "&#x27;"})


def spellings(secret: str) -> list[str]:
    """Return every common way of writing ``secret`` down, longest first. An empty secret has none."""
    encoded = {quote(secret, safe=""), quote(secret), quote_plus(secret), quote(secret, safe="!#$%&'()*+,/:;=?@[]~")}
    lower_case = {re.sub("%[0-9A-F]{2}", lambda digits: digits.group().lower(), text) for text in encoded}
    quoted = {json.dumps(secret)[1:-1], json.dumps(secret, ensure_ascii=False)[1:-1], secret.translate(_HTML)}
    return sorted(({secret} | encoded | lower_case | quoted) - {""}, key=len, reverse=True)


def hide(text: str, secrets: Iterable[str]) -> str:
    """Return ``text`` with every spelling of every one of the secrets replaced by three asterisks."""
    for secret in secrets:
        for spelling in spellings(secret):
            text = text.replace(spelling, HIDDEN)
    return text


def one_line(text: str, limit: int = 200) -> str:
    """Return ``text`` as one line of printable characters, cut to at most ``limit`` of them."""
    printable = "".join(character if character.isprintable() else " " for character in text)
    return " ".join(printable.split())[:limit]
