"""The cloud client: log in, send readings, ask what is stored.

Thread: one at a time, whichever it is. Only ``close()`` may come from another one.

Guarantees: a call blocks for at most ``total_timeout_s`` seconds, its log-in included. The token is fetched on first
use, renewed once when the platform answers 401 or 403, and the call then repeated once. Nothing that is not a finite
number goes out. Sending twice what is already stored changes nothing, so a caller in doubt sends again. Errors are of
``errors.py`` alone and, like the log, free of secrets.

Does not guarantee that readings in a refused batch are not stored: the platform does not say.

Source of the calls: the platform's public client library and API examples (AretasPythonAPI, APIExamples).
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from typing import TypeVar
from urllib.parse import quote

from aretas_api import answers
from aretas_api.answers import Devices, NotTheApi, SensorType
from aretas_api.errors import BatchTooLarge, DeviceNotRegistered, LogInRefused, ReadingsRefused, TryLater
from aretas_api.redaction import hide, one_line
from aretas_api.transport import Answer, Question, Transport
from measurements import Datum

T = TypeVar("T")

LOG_IN_PATH = "authentication/g"
OK = 200
REFUSED_TOKEN = (401, 403)
REFUSED_CONTENT = (400, 422)
TOO_LARGE = 413


class AretasClient:
    """The platform at ``base_url``, as one user sees it. Opens nothing before the first call.

    ``connect_timeout_s`` limits one attempt to connect, ``read_timeout_s`` the silence of the server,
    ``total_timeout_s`` a whole call. ``on_secret`` is told every token as soon as it is known, so that a log filter can
    hide it; ``on_answer`` the ``Date`` of every answer, in seconds since the epoch, ``None`` without one, as soon as it
    has come. Raises ValueError if ``base_url`` is no http or https URL.
    """

    def __init__(
        self,
        base_url: str,
        username: str,
        password: str,
        *,
        connect_timeout_s: float = 5.0,
        read_timeout_s: float = 10.0,
        total_timeout_s: float = 15.0,
        on_secret: Callable[[str], None] | None = None,
        on_answer: Callable[[float | None], None] = lambda date_utc_s: None,
    ) -> None:
        self._transport = Transport(
            base_url,
            on_answer,
            connect_timeout_s=connect_timeout_s,
            read_timeout_s=read_timeout_s,
            total_timeout_s=total_timeout_s,
        )
        self._host = self._transport.host
        self._username = username
        self._password = password
        self._token: str | None = None
        self._on_secret = on_secret

    def log_in(self) -> None:
        """Fetch a new token. Raises LogInRefused or TryLater."""
        with self._transport.call():
            self._fetch_token()

    def is_logged_in(self) -> bool:
        """Ask whether the present token is still good; without one, answer no and ask nobody. Raises TryLater."""
        if self._token is None:
            return False
        question = Question(method="GET", path="greetings/isloggedin")
        with self._transport.call():
            answer = self._transport.exchange(self._with_token(question))
        if answer.status in REFUSED_TOKEN:
            return False
        self._require_ok(question, answer)
        return True

    def send_batch(self, readings: Sequence[Datum]) -> None:
        """Send readings, all or none of which are accepted. An empty batch is not sent.

        Raises ReadingsRefused, DeviceNotRegistered, BatchTooLarge, LogInRefused, TryLater; ValueError, before anything
        is sent, if a value is not finite.
        """
        _require_finite(readings)
        if not readings:
            return
        body = json.dumps([datum.as_wire() for datum in readings], allow_nan=False, separators=(",", ":"))
        headers = {"Content-Type": "application/json"}
        self._send(Question(method="POST", path="ingest/std/batch", headers=headers, body=body.encode()), readings)

    def send_one(self, datum: Datum) -> None:
        """Send one reading, by the call the platform has for small devices. Raises as ``send_batch``."""
        _require_finite([datum])
        query = _query([("t", datum.timestamp_utc_ms), ("m", datum.mac), ("st", datum.type), ("d", datum.data)])
        headers = {"X-AIR-Token": str(datum.mac)}
        self._send(Question(method="GET", path="ingest/secured/std/get", query=query, headers=headers), [datum])

    def devices(self, invalidate_cache: bool = False) -> Devices:
        """Return the devices of the account, afresh if ``invalidate_cache``. Raises LogInRefused or TryLater."""
        query = _query([("invalidateCache", "true" if invalidate_cache else "false")])
        return self._ask(Question(method="GET", path="client/locationview", query=query), answers.devices)

    def latest(self, macs: Iterable[int]) -> list[Datum]:
        """Return the latest stored reading of each type of each device. Raises LogInRefused or TryLater."""
        headers = {"Content-Type": "application/json"}
        body = json.dumps(list(macs)).encode()
        return self._ask(Question(method="POST", path="sensorreport/latest", headers=headers, body=body), answers.data)

    def history(self, mac: int, begin_utc_ms: int, end_utc_ms: int, types: Iterable[int]) -> list[Datum]:
        """Return what is stored of one device and some types in a span of time. Raises LogInRefused or TryLater."""
        span: list[tuple[str, object]] = [("mac", mac), ("begin", begin_utc_ms), ("end", end_utc_ms)]
        query = _query(span + [("type", sensor_type) for sensor_type in types])
        return self._ask(Question(method="GET", path="sensordata/byrange", query=query), answers.data)

    def sensor_types(self) -> list[SensorType]:
        """Return the catalogue of sensor types. Needs no log-in. Raises TryLater; LogInRefused if it does need one."""
        question = Question(method="GET", path="sensortype/list")
        with self._transport.call():
            answer = self._transport.exchange(question)
        self._require_ok(question, answer)
        return self._parse(question, answer, answers.sensor_types)

    def close(self) -> None:
        """Close the connection and end the call under way, if any, with TryLater. A later call opens a new one."""
        self._transport.close()

    def _ask(self, question: Question, parse: Callable[[bytes], T]) -> T:
        answer = self._exchange(question)
        self._require_ok(question, answer)
        return self._parse(question, answer, parse)

    def _send(self, question: Question, readings: Sequence[Datum]) -> None:
        """Send readings and raise what the platform has against them."""
        answer = self._exchange(question)
        count = len(readings)
        if answer.status == TOO_LARGE:
            raise BatchTooLarge(f"{self._host} finds {count} readings in one request too many ({TOO_LARGE})")
        if answer.status in REFUSED_CONTENT and not answer.body.lstrip().startswith(b"<"):  # a page is some proxy's
            message = self._presentable(answer.body.decode("utf-8", "replace"))
            text = f"{self._host} refused {count} readings ({answer.status}): {message}"
            raise ReadingsRefused(text, message=message)
        self._require_ok(question, answer)
        verdict = self._parse(question, answer, answers.verdict)
        if verdict.accepted:
            return
        if verdict.message.strip().lower() == "not authorized":
            macs = ", ".join(str(mac) for mac in sorted({datum.mac for datum in readings}))
            raise DeviceNotRegistered(
                f"{self._host} does not know device {macs} in this account (not authorized): check the number (MAC);"
                " a new device is accepted after some minutes"
            )
        message = self._presentable(verdict.message)
        raise ReadingsRefused(f"{self._host} refused {count} readings: {message}", message=message)

    def _exchange(self, question: Question) -> Answer:
        """Ask with a token, and once more with a new one if it is refused."""
        with self._transport.call():
            if self._token is None:
                self._fetch_token()
            answer = self._transport.exchange(self._with_token(question))
            if answer.status in REFUSED_TOKEN:
                self._fetch_token()
                answer = self._transport.exchange(self._with_token(question))
        if answer.status in REFUSED_TOKEN:
            self._token = None
            raise LogInRefused(f"{self._host} refused {question.path} right after the log-in ({answer.status})")
        return answer

    def _fetch_token(self) -> None:
        self._token = None
        secret_query = _query([("username", self._username), ("password", self._password)])
        question = Question(method="GET", path=LOG_IN_PATH, secret_query=secret_query)
        answer = self._transport.exchange(question)
        if answer.status in REFUSED_TOKEN:
            raise LogInRefused(f"{self._host} refused the user name and password ({answer.status})")
        self._require_ok(question, answer)
        self._token = self._parse(question, answer, answers.token)
        if self._on_secret is not None:
            self._on_secret(self._token)

    def _with_token(self, question: Question) -> Question:
        return replace(question, headers={**question.headers, "Authorization": f"Bearer {self._token}"})

    def _require_ok(self, question: Question, answer: Answer) -> None:
        if answer.status in REFUSED_TOKEN:
            raise LogInRefused(f"{self._host} refused {question.path} ({answer.status})")
        if answer.status != OK:
            text = f"{self._host} answered {question.path} with status {answer.status}"
            raise TryLater(text, retry_after_s=answer.retry_after_s)

    def _parse(self, question: Question, answer: Answer, parse: Callable[[bytes], T]) -> T:
        try:
            return parse(answer.body)
        except NotTheApi as exc:
            text = f"{self._host} answered {question.path} with something that is not the API's: {exc}"
            raise TryLater(text) from exc

    def _presentable(self, text: str) -> str:
        """Return the server's words fit for an operator and a log: one line, and no secret it may have echoed."""
        return one_line(hide(text, [self._password, self._token or ""]))


def _query(pairs: Iterable[tuple[str, object]]) -> str:
    """Return a query with every value percent-encoded exactly once, as UTF-8."""
    return "&".join(f"{name}={quote(str(value), safe='')}" for name, value in pairs)


def _require_finite(readings: Sequence[Datum]) -> None:
    for datum in readings:
        if not math.isfinite(datum.data):
            raise ValueError(f"a reading of type {datum.type} of device {datum.mac} is {datum.data}, no finite number")
