"""The headers that every answer of the web server has, and the form of a refusal."""

from __future__ import annotations

import json

SECURITY = [
    (
        "Content-Security-Policy",
        "default-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'; object-src 'none'",
    ),
    ("X-Content-Type-Options", "nosniff"),
    ("X-Frame-Options", "DENY"),
    ("Referrer-Policy", "no-referrer"),
    ("Cross-Origin-Resource-Policy", "same-origin"),
    ("Cross-Origin-Opener-Policy", "same-origin"),
]
NO_STORE = [("Cache-Control", "no-store")]


def error_body(why: str) -> bytes:
    """Return why there is no answer, as JSON."""
    return json.dumps({"error": why}, ensure_ascii=False).encode()
