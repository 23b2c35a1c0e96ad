"""One HTTP exchange with the Aretas platform: a question out, an answer back, or ``TryLater``.

Thread: one at a time, whichever it is. Only ``close()`` may come from another one; it ends the call under way.

Guarantees: every exchange inside one ``call()`` is over within the total timeout. Redirects are not followed, cookies
not kept, ~/.netrc not read; the proxies and certificate files named in the environment are used. At most 4 MiB of an
answer are read. One connection, kept open between calls.

Exceptions of requests are converted here and nowhere else, and against the rule of the house not ``from`` them: they
may quote what the server sent, and a server that echoes the question sends the password. The operating system's own
words for the cause are kept. A log line of an exchange names method, path, status and time, never a query or a header.
"""

from __future__ import annotations

import http.client
import logging
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from email.utils import parsedate_to_datetime
from http.cookiejar import DefaultCookiePolicy
from ipaddress import ip_address
from urllib.parse import urlsplit

import requests
import urllib3.exceptions
from requests.auth import AuthBase

from aretas_api.errors import TryLater
from aretas_api.wire import Call, CallAdapter
from clock import Clock

logger = logging.getLogger(__name__)

LONGEST_ANSWER_BYTES = 4 * 1024 * 1024
LONGEST_RETRY_AFTER_S = 3600.0
FOREIGN = (requests.RequestException, urllib3.exceptions.HTTPError, http.client.HTTPException, OSError)


@dataclass(frozen=True, slots=True, kw_only=True)
class Question:
    """One request: ``path`` relative to the base URL, ``query`` percent-encoded, ``secret_query`` shown to nobody."""

    method: str
    path: str
    query: str = ""
    secret_query: str = field(default="", repr=False)
    headers: Mapping[str, str] = field(default_factory=dict, repr=False)
    body: bytes | None = None

    def __str__(self) -> str:
        return f"{self.method} {self.path}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """What came back: HTTP status, the whole body, and after how many seconds to come back, if that was said."""

    status: int
    body: bytes
    retry_after_s: float | None = None


class Transport:
    """The way to the platform at ``base_url`` (http or https, trailing slash optional). Opens nothing by itself.

    Raises ValueError if ``base_url`` is no such URL.
    """

    def __init__(
        self,
        base_url: str,
        on_answer: Callable[[float | None], None],
        *,
        connect_timeout_s: float,
        read_timeout_s: float,
        total_timeout_s: float,
    ) -> None:
        self.host = _host_of(base_url)
        self._on_answer = on_answer
        self._base_url = base_url.rstrip("/") + "/"
        self._timeouts_s = (connect_timeout_s, read_timeout_s)
        self._total_timeout_s = total_timeout_s
        self._clock = Clock()
        self._session = _new_session()
        self._call: Call | None = None
        # A proxy in the environment is for the world outside; this machine's own addresses are not out there.
        self._proxies = {"no_proxy": self.host} if _is_loopback(self.host) else None

    @contextmanager
    def call(self) -> Iterator[None]:
        """Limit all exchanges made inside the ``with`` to the total timeout, together."""
        with Call(self._total_timeout_s, self._clock) as self._call:
            try:
                yield
            finally:
                self._call = None

    def exchange(self, question: Question) -> Answer:
        """Ask, inside ``call()``, and return the answer, whatever its status.

        Raises TryLater if there was no complete answer of at most 4 MiB.
        """
        call = self._call
        if call is None:
            raise RuntimeError("exchange() belongs inside call()")
        begin_mono_s = self._clock.mono_s()
        failure = None
        try:
            answer = self._fetch(call, question)
        except FOREIGN as exc:
            failure = self._reason(exc)
        except ValueError:  # what the TLS library says of a connection that was shut down before its handshake
            if call.ended_because is None:
                raise
        failure = call.ended_because or failure
        elapsed_ms = (self._clock.mono_s() - begin_mono_s) * 1000
        if failure is not None:  # raised out here, so that not even the context of the error leads to the foreign one
            logger.debug("%s: %s, after %.0f ms", question, failure, elapsed_ms)
            raise TryLater(f"{self.host} gave no answer to {question.path}: {failure}")
        logger.debug("%s: %d in %.0f ms", question, answer.status, elapsed_ms)
        if len(answer.body) > LONGEST_ANSWER_BYTES:
            raise TryLater(f"{self.host} answered {question.path} with more than {LONGEST_ANSWER_BYTES} bytes")
        return answer

    def close(self) -> None:
        """Close the connection and end the call under way, if any, with TryLater. A later call opens a new one."""
        call = self._call
        if call is not None:
            call.end("the client was closed")
        self._session.close()

    def _fetch(self, call: Call, question: Question) -> Answer:
        """Return the answer, asking a second time if the kept connection turns out to be stale.

        The server may close a kept connection just as the question leaves, and whether it got it cannot be known. To
        ask again is safe for every call of this API: all but one only read, and a reading sent twice is the same
        reading, by device, type and timestamp.
        """
        try:
            response = self._open(call, question)
        except requests.ConnectionError:
            if not call.on_kept_connection or call.ended_because is not None:
                raise
            logger.debug("%s: the kept connection was stale; asking again on a new one", question)
            response = self._open(call, question)
        self._on_answer(_http_date_utc_s(response.headers.get("Date", "")))
        with response:
            body = bytearray()
            for chunk in response.iter_content(65536):
                body += chunk
                if len(body) > LONGEST_ANSWER_BYTES:
                    break
        return Answer(status=response.status_code, body=bytes(body), retry_after_s=self._retry_after_s(response))

    def _open(self, call: Call, question: Question) -> requests.Response:
        """Ask and return the answer as far as its headers."""
        call.on_kept_connection = False
        call.secret_query = question.secret_query
        return self._session.request(
            question.method,
            self._base_url + question.path + (f"?{question.query}" if question.query else ""),
            headers=question.headers,
            data=question.body,
            timeout=self._timeouts_s,
            proxies=self._proxies,
            allow_redirects=False,
            stream=True,
        )

    def _reason(self, exc: BaseException) -> str:
        """Return why there is no answer, in words that cannot hold anything the server sent."""
        connect_timeout_s, read_timeout_s = self._timeouts_s
        if isinstance(exc, requests.ConnectTimeout):
            return f"no connection within {connect_timeout_s:g} s"
        root = exc
        while (inner := root.__cause__ or root.__context__) is not None:
            root = inner
        if isinstance(root, OSError) and root.strerror:
            return root.strerror
        if isinstance(root, TimeoutError):
            return f"silence for {read_timeout_s:g} s"
        return f"cut short or no HTTP ({type(root).__name__})"

    def _retry_after_s(self, response: requests.Response) -> float | None:
        """Return the header Retry-After in seconds, 0 to 3600, ``None`` without a valid one (RFC 9110, 10.2.3).

        A date is counted from the server's own ``Date``, because this machine's clock may be wrong.
        """
        text = response.headers.get("Retry-After", "").strip()
        if text.isascii() and text.isdigit():
            return min(float(text), LONGEST_RETRY_AFTER_S)
        until_utc_s = _http_date_utc_s(text)
        if until_utc_s is None:
            return None
        now_utc_s = _http_date_utc_s(response.headers.get("Date", ""))
        delay_s = until_utc_s - (self._clock.utc_s() if now_utc_s is None else now_utc_s)
        return min(max(0.0, delay_s), LONGEST_RETRY_AFTER_S)


class _NoAuth(AuthBase):
    """Adds nothing. Without any, requests would replace our Authorization header by what ~/.netrc has for the host."""

    def __call__(self, request: requests.PreparedRequest) -> requests.PreparedRequest:
        return request


class _Session(requests.Session):
    """A session to which no answer is a redirect: requests would read the body of one without a limit."""

    def get_redirect_target(self, resp: requests.Response) -> None:
        return None


def _new_session() -> requests.Session:
    session = _Session()
    session.auth = _NoAuth()
    session.cookies.set_policy(DefaultCookiePolicy(allowed_domains=[]))
    adapter = CallAdapter(pool_connections=1, pool_maxsize=1)
    session.mount("https://", adapter)
    session.mount("http://", adapter)
    return session


def _host_of(base_url: str) -> str:
    """Return the host name of the URL, without a port. Raises ValueError, whose text never quotes the URL."""
    try:
        parts = urlsplit(base_url)
        usable = parts.scheme in ("http", "https") and parts.port != 0 and not (parts.query or parts.fragment)
    except ValueError:
        raise ValueError("the base URL is malformed") from None
    if not usable or not parts.hostname or "@" in parts.netloc:
        raise ValueError("the base URL must be like https://host/path/, with no user name, query or fragment in it")
    return parts.hostname


def _is_loopback(host: str) -> bool:
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _http_date_utc_s(text: str) -> float | None:
    try:
        return parsedate_to_datetime(text).timestamp()
    except (ValueError, OverflowError):
        return None
