"""The routes: which address gives which answer, and how a refusal is said. A WSGI application.

Used by the threads of the web server. Guarantees: read-only (GET and HEAD); every answer but the page and the table is
JSON, refusals too: ``{"error": "why"}``; every answer has the security headers; a long answer is written piece by
piece, so that it takes little memory and no thread of the daemon waits for it; at most so many requests a second are
worked at, and the others wait. No text of a request reaches SQL, a path of the file system, or HTML.
"""

from __future__ import annotations

import io
import logging
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import bottle

from history import HistoryError
from state_log import StateLog
from web import parameters
from web.answers import Answers, history_of, period_energy
from web.auth import Gate, TriedTooOften
from web.bodies import Paced, Table, as_json, pieces_of_columns, pieces_of_points
from web.facts import Facts
from web.files import StaticFiles
from web.headers import NO_STORE, SECURITY, error_body
from web.health import status, unhealthy
from web.metrics import CONTENT_TYPE as METRICS_TYPE
from web.metrics import exposition
from web.pace import Pace

logger = logging.getLogger(__name__)

_DAY_MS = 86_400_000
_TABLES_AT_ONCE = _QUESTIONS_AT_ONCE = 1  # to the database: sampling needs a processor, too
_WAITS_FOR_OTHERS_S = 10.0
_JSON_TYPE = "application/json"

Environ = Mapping[str, Any]
StartResponse = Callable[..., Any]


class Site:
    """The WSGI application. ``log``: what an error of the program is told; ``pause`` waits for so many seconds."""

    def __init__(self, facts: Facts, gate: Gate, folder: Path, log: StateLog, pause: Callable[[float], object]) -> None:
        self._facts = facts
        self._gate = gate
        self._log = log
        self._pace = Pace(facts.clock, pause)
        self._answers = Answers(facts)
        self._files = StaticFiles(folder / "static")
        self._description = folder / "openapi.json"
        self._questions = threading.BoundedSemaphore(_QUESTIONS_AT_ONCE)
        self._tables = threading.BoundedSemaphore(_TABLES_AT_ONCE)
        self._app = self._routes()

    def __call__(self, environ: dict[str, Any], start_response: StartResponse) -> Iterable[bytes]:
        """Answer one request."""
        self._pace.begin()
        environ["wsgi.errors"] = io.StringIO()  # bottle's own traceback; the log has it from _on_error

        def start(status: str, headers: list[tuple[str, str]], exc_info: Any = None) -> Any:
            return start_response(status, [*headers, *SECURITY], exc_info)

        refusal = self._refusal(environ)
        if refusal is None:
            return Paced(self._app(environ, start), self._pace.end)
        status, headers, why = refusal
        body = error_body(why)
        self._pace.end()
        start(status, [("Content-Type", _JSON_TYPE), ("Content-Length", str(len(body))), *NO_STORE, *headers])
        return [] if environ["REQUEST_METHOD"] == "HEAD" else [body]

    def _refusal(self, environ: Environ) -> tuple[str, list[tuple[str, str]], str] | None:
        """Return status, headers and reason if the request is not let in."""
        if not self._gate.is_own_name(str(environ.get("HTTP_HOST", ""))):
            why = "this is not a name of this computer: use its IP address, or localhost"
            return "421 Misdirected Request", [], why
        try:
            if self._gate.admits(environ.get("HTTP_AUTHORIZATION"), str(environ.get("REMOTE_ADDR", ""))):
                return None
        except TriedTooOften as exc:
            wait_s = max(1, round(exc.wait_s))
            why = f"too many wrong passwords: wait {wait_s} seconds"
            return "429 Too Many Requests", [("Retry-After", str(wait_s))], why
        challenge = 'Basic realm="Power monitor", charset="UTF-8"'
        return "401 Unauthorized", [("WWW-Authenticate", challenge)], "the password is needed; any user name will do"

    def _routes(self) -> Any:
        app = bottle.Bottle()
        app.default_error_handler = self._on_error
        app.route("/", "GET", self._page)
        app.route("/static/<name:path>", "GET", self._file)
        app.route("/openapi.json", "GET", self._openapi)
        app.route("/healthz", "GET", self._healthz)
        app.route("/metrics", "GET", self._metrics)
        app.route("/api/latest", "GET", lambda: self._plain(self._answers.latest))
        app.route("/api/status", "GET", lambda: self._plain(lambda: status(self._facts)))
        app.route("/api/energy", "GET", self._energy)
        app.route("/api/history", "GET", self._history)
        app.route("/api/history.csv", "GET", self._table)
        return app

    @property
    def paths(self) -> list[str]:
        """The addresses it answers, as the router knows them."""
        return [str(route.rule) for route in self._app.routes]

    # -- the page ----------------------------------------------------------------------------------------------------

    def _page(self) -> Any:
        asked = str(bottle.request.environ["REQUEST_URI"])
        path = asked.partition("?")[0] if asked.startswith("/") else urlsplit(asked).path
        if path not in ("/", ""):  # what was made a "/" of on its way here: //, /%2f, /%ff
            raise bottle.HTTPError(404, "there is no such page")
        return self._file("index.html")

    def _file(self, name: str) -> Any:
        _parameters_of(())
        file = self._files.read(name)
        if file is None:
            raise bottle.HTTPError(404, "there is no such file")
        bottle.response.content_type = file.content_type
        bottle.response.set_header("Cache-Control", "no-cache")  # an update shows at once
        bottle.response.set_header("ETag", file.tag)
        if file.tag in bottle.request.get_header("If-None-Match", ""):
            bottle.response.status = 304
            return b""
        return file.content

    def _openapi(self) -> bytes:
        _parameters_of(())
        return _json_answer(self._description.read_bytes())

    # -- how it is doing ---------------------------------------------------------------------------------------------

    def _healthz(self) -> bytes:
        _parameters_of(())
        why = unhealthy(self._facts)
        if why is None:
            return _json_answer(as_json({"status": "ok"}))
        raise bottle.HTTPError(503, why)

    def _metrics(self) -> bytes:
        _parameters_of(())
        bottle.response.content_type = METRICS_TYPE
        _no_store()
        return exposition(self._facts)

    def _plain(self, answer: Callable[[], Mapping[str, Any]]) -> bytes:
        _parameters_of(())
        return _json_answer(as_json(answer()))

    # -- what the database says --------------------------------------------------------------------------------------

    def _energy(self) -> bytes:
        values = _parameters_of(("from", "to"))
        with _refusing():
            if not values:
                return _json_answer(as_json(self._answers.periods()))
            to_utc_ms = parameters.when_utc_ms(values, "to", self._facts.now_utc_ms)
            from_utc_ms = parameters.when_utc_ms(values, "from", 0)
            parameters.check_period(from_utc_ms, to_utc_ms)
            with self._one_question(), history_of(self._facts) as history:
                return _json_answer(as_json(period_energy(history.energy(from_utc_ms, to_utc_ms))))

    def _history(self) -> Iterator[bytes]:
        values = _parameters_of(("from", "to", "step", "columns"))
        with _refusing():
            to_utc_ms = parameters.when_utc_ms(values, "to", self._facts.now_utc_ms)
            from_utc_ms = parameters.when_utc_ms(values, "from", max(0, to_utc_ms - _DAY_MS))
            parameters.check_period(from_utc_ms, to_utc_ms)
            step_ms = parameters.step_ms(values, to_utc_ms - from_utc_ms, self._facts.report_interval_ms)
            by_column = parameters.flag(values, "columns")
            with self._one_question(), history_of(self._facts) as history:
                points = history.points(from_utc_ms, to_utc_ms, step_ms)
        _json_answer(b"")
        head = {"from": from_utc_ms, "to": to_utc_ms, "step_ms": step_ms}
        return pieces_of_columns(head, points) if by_column else pieces_of_points(head, points)

    def _table(self) -> Iterable[bytes]:
        values = _parameters_of(("from", "to", "step"))
        with _refusing():
            to_utc_ms = parameters.when_utc_ms(values, "to", self._facts.now_utc_ms)
            from_utc_ms = parameters.when_utc_ms(values, "from", 0)
            parameters.check_period(from_utc_ms, to_utc_ms)
            step_ms = None
            if "step" in values:
                step_ms = parameters.step_ms(values, to_utc_ms - from_utc_ms, self._facts.report_interval_ms)
            with self._one_question(), history_of(self._facts) as history:
                points = (
                    history.intervals(from_utc_ms, to_utc_ms)
                    if step_ms is None
                    else iter(history.points(from_utc_ms, to_utc_ms, step_ms))
                )
        bottle.response.content_type = "text/csv; charset=utf-8"
        bottle.response.set_header("Content-Disposition", 'attachment; filename="power_history.csv"')
        _no_store()
        if bottle.request.method == "HEAD":
            return iter(())
        if not self._tables.acquire(blocking=False):
            raise bottle.HTTPError(503, "another table is just being fetched: try again when it is done")
        return Table(points, self._pace.breathe, self._tables.release)

    @contextmanager
    def _one_question(self) -> Iterator[None]:
        """Wait for the questions of others to the database to be answered."""
        if not self._questions.acquire(timeout=_WAITS_FOR_OTHERS_S):
            raise bottle.HTTPError(503, "too many questions to the database: try again in a minute")
        try:
            yield
        finally:
            self._questions.release()

    # -- refusals ----------------------------------------------------------------------------------------------------

    def _on_error(self, error: Any) -> bytes:
        """Say as JSON why there is no answer; tell the log if it is the program's own fault."""
        why = str(error.body)
        if error.status_code == 404 and error.exception is None and why.startswith("Not found"):
            why = "there is nothing at this address"
        elif error.status_code == 405:
            why = "this can only be read: GET and HEAD"
            error.set_header("Allow", "GET, HEAD")
        elif error.status_code == 500:
            where = str(error.traceback or "").strip()
            self._log.failed(
                "error", f"an answer failed: {error.exception!r}; please report this. {where}", level=logging.ERROR
            )
            why = "an error of the program, see the log"
        for name, value in NO_STORE:
            error.set_header(name, value)
        error.content_type = _JSON_TYPE
        return error_body(why)


def _parameters_of(known: tuple[str, ...]) -> dict[str, str]:
    with _refusing():
        return parameters.parse(bottle.request.query_string, known)


@contextmanager
def _refusing() -> Iterator[None]:
    """Turn what is wrong with a request into 400, and a database that cannot be read into 503."""
    try:
        yield
    except (parameters.BadRequest, ValueError) as exc:
        raise bottle.HTTPError(400, str(exc)) from exc
    except HistoryError as exc:
        raise bottle.HTTPError(503, str(exc)) from exc


def _json_answer(body: bytes) -> bytes:
    bottle.response.content_type = _JSON_TYPE
    _no_store()
    return body


def _no_store() -> None:
    for name, value in NO_STORE:
        bottle.response.set_header(name, value)
