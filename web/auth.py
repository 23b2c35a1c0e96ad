"""Who may look: the password (HTTP Basic), how often it may be tried, and under which names the server answers.

Used by the threads of the web server; one lock, held for microseconds. Guarantees: a password is compared in a time
that does not tell where it is wrong; whoever tries passwords is held up, by address and all together, and neither takes
memory; an address that has given the right one lately is not held up by what others try. The time of the limits is
monotonic. There is no protection against somebody who reads the network: HTTP is not encrypted.

Without a password the ``Host`` of a request must be a name that no name server of the internet can answer for: a web
page from elsewhere that an operator's browser shows could else have its own name lead to this computer, and read the
battery (DNS rebinding). With a password it could not: the browser knows none for that name.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import ipaddress
import logging
import re
import threading
from collections import OrderedDict, deque
from typing import TypeVar

from clock import Clock
from state_log import Ration

logger = logging.getLogger(__name__)

_TRIES, _TRIES_WITHIN_S = 5, 60.0  # of one address
_TRIES_OF_ALL = 60  # within the same time, of all addresses without a recent success
_ADDRESSES_KEPT = 256
_LOCAL_ENDINGS = (".local", ".localhost", ".lan", ".home", ".internal", ".localdomain", ".home.arpa", ".invalid")

_HOST = re.compile(r"(?P<name>[A-Za-z0-9_.-]+|\[[0-9A-Fa-f:.]+\])(:[0-9]{1,5})?", re.ASCII)
_T = TypeVar("_T")


class TriedTooOften(Exception):
    """Refuse the request without looking at its password, and say to come again in ``wait_s`` seconds."""

    def __init__(self, wait_s: float) -> None:
        super().__init__("too many wrong passwords")
        self.wait_s = wait_s


class Gate:
    """Lets in who knows the password; everybody if that is ``None``."""

    def __init__(self, password: str | None, clock: Clock) -> None:
        self._password = None if password is None else password.encode()
        self._clock = clock
        self._lock = threading.Lock()
        self._failed: OrderedDict[str, deque[tuple[float, bytes]]] = OrderedDict()
        self._failed_of_all: deque[float] = deque(maxlen=_TRIES_OF_ALL)
        self._known: OrderedDict[str, None] = OrderedDict()
        self._ration = Ration(clock)

    def is_own_name(self, host: str) -> bool:
        """Return whether a request with this ``Host`` is meant for this computer; always with a password."""
        if self._password is not None:
            return True
        match = _HOST.fullmatch(host)
        if match is None:
            return False
        name = match["name"].rstrip(".").lower()
        try:
            ipaddress.ip_address(name.strip("[]"))
        except ValueError:
            return "." not in name or name.endswith(_LOCAL_ENDINGS)
        return True

    def admits(self, authorization: str | None, address: str) -> bool:
        """Return whether the request may be answered. Raises ``TriedTooOften``."""
        if self._password is None:
            return True
        if authorization is None:
            return False
        who = _whose(address)
        with self._lock:
            self._check_tries(who)
            given = _password_in(authorization)
            if given is not None and hmac.compare_digest(given, self._password):
                _remember(self._known, who, None)
                return True
            is_told = self._note_failure(who, authorization) and self._ration.take()
            hint = self._ration.hint
        if is_told:
            logger.warning("page: a wrong password came from %s%s", who, hint)
        return False

    def _check_tries(self, who: str) -> None:
        now_mono_s = self._clock.mono_s()
        own = self._failed.get(who)
        waits_s = [own[0][0] + _TRIES_WITHIN_S - now_mono_s] if own is not None and len(own) == _TRIES else []
        if who not in self._known and len(self._failed_of_all) == _TRIES_OF_ALL:
            waits_s.append(self._failed_of_all[0] + _TRIES_WITHIN_S - now_mono_s)
        if waits_s and max(waits_s) > 0:
            raise TriedTooOften(max(waits_s))

    def _note_failure(self, who: str, authorization: str) -> bool:
        """Count a try; return whether it is one. The same again is none: it guesses nothing."""
        now_mono_s, what = self._clock.mono_s(), hashlib.sha256(authorization.encode()).digest()
        tries = self._failed.get(who, deque(maxlen=_TRIES))
        _remember(self._failed, who, tries)
        if any(tried == what and now_mono_s - tried_mono_s < _TRIES_WITHIN_S for tried_mono_s, tried in tries):
            return False
        tries.append((now_mono_s, what))
        self._failed_of_all.append(now_mono_s)
        return True


def _remember(kept: OrderedDict[str, _T], who: str, what: _T) -> None:
    kept[who] = what
    kept.move_to_end(who)
    if len(kept) > _ADDRESSES_KEPT:
        kept.popitem(last=False)


def _password_in(authorization: str) -> bytes | None:
    """Return the password of a header ``Basic ...``, whoever it says it is; ``None`` if it has no such form."""
    scheme, _, encoded = authorization.partition(" ")
    if scheme.lower() != "basic":
        return None
    try:
        return base64.b64decode(encoded.strip(), validate=True).partition(b":")[2]
    except (binascii.Error, ValueError):
        return None


def _whose(address: str) -> str:
    """Return whom an address stands for: of IPv6 one computer has 2^64."""
    try:
        known = ipaddress.ip_address(address.partition("%")[0])
    except ValueError:
        return address
    if isinstance(known, ipaddress.IPv6Address) and known.ipv4_mapped is None:
        return str(ipaddress.ip_network((known, 64), strict=False))
    return str(known)
