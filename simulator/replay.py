"""A wire log played back: each port of the log becomes a port again, whose meter answers as the recorded one did.

A question is answered with the bytes, and after the delay, of the recording. The questions are expected in the
recorded order. When another one comes, the next one like it, up to ``_AHEAD`` further on, is taken, and what lies
between is left out; if there is none so near, it is answered as that question was answered last, and the place in the
recording is kept; a question that is nowhere in the recording gets no answer, as with a real meter. Where the port
failed or could not be opened it vanishes, and comes back after the time it was away. At the end of the recording the
meter goes on answering each question as it did last.

What a recording does not tell: when bytes came that nobody was waiting for, or a port vanished that nobody was using.
That is known only from when it was noticed; played back it happens half-way between the event before and that.

Guarantees: the same recording and the same questions at the same times give the same bytes. Each port has two threads:
its pump (``ports.py``) and one that plugs it in and out.
"""

from __future__ import annotations

import heapq
import itertools
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Self, cast

from clock import Clock
from xdm1041 import wire_log
from xdm1041.wire_log import NotAWireLog, WireEvent

from .firmware_loop import LineReceiver
from .meter import VirtualMeter
from .ports import Port, PtyPort, TcpPort

_AHEAD = 25  # questions; a sample of the daemon has five, settling up to thirty
_ENDS_WITHIN_S = 60.0


class BadWireLog(ValueError):
    """A file cannot be played. The message says which line and why; choose another file, or cut that line out."""


@dataclass(slots=True, kw_only=True)
class Exchange:
    """One question (or command) and what came after it, until the next: bytes and by how much later, in seconds."""

    text: str
    answers: list[tuple[float, bytes]] = field(default_factory=list)


@dataclass(slots=True, kw_only=True)
class Session:
    """What happened from one plugging in to the next.

    ``power_on``: what came before the first question. ``vanishes_after_s``: after the last question, or after the
    plugging in if there was none; ``None``: it stayed. ``absent_s``: how long it was away, ``None``: for good.
    """

    power_on: list[tuple[float, bytes]] = field(default_factory=list)
    exchanges: list[Exchange] = field(default_factory=list)
    vanishes_after_s: float | None = None
    absent_s: float | None = None


@dataclass(slots=True, kw_only=True)
class PortRecording:
    """All that a wire log tells of one port. ``absent_s``: for how long it was not there at first."""

    port: str
    absent_s: float
    sessions: list[Session]


def read_wire_logs(paths: Sequence[Path]) -> list[PortRecording]:
    """Return what the files hold, oldest file first, by port in order of appearance. Raises ``BadWireLog``."""
    builders: dict[str, _Builder] = {}
    begun_mono_s: float | None = None
    for where, event in itertools.chain.from_iterable(_events(path) for path in paths):
        if event.what == wire_log.NOTE:
            continue
        begun_mono_s = event.t_mono_s if begun_mono_s is None else begun_mono_s
        builder = builders.setdefault(event.port, _Builder(event.port, begun_mono_s))
        if event.t_mono_s < builder.last_mono_s:
            raise BadWireLog(f"{where}: time goes back here: the computer was restarted. Play the two parts one by one")
        builder.take(event)
    if not builders:
        raise BadWireLog(f"{', '.join(map(str, paths))}: nothing is recorded in it")
    return [builder.recording for builder in builders.values()]


def _events(path: Path) -> Iterator[tuple[str, WireEvent]]:
    """Yield each event and where it stands. A last line that is cut short is left out: the log was being written."""
    try:
        lines = path.read_text(encoding="ascii").splitlines(keepends=True)
    except (OSError, UnicodeDecodeError) as exc:
        raise BadWireLog(f"{path}: cannot be read as a wire log: {exc}") from exc
    for number, line in enumerate(lines, start=1):
        try:
            yield f"{path}, line {number}", WireEvent.of_line(line)
        except NotAWireLog as exc:
            if line.endswith("\n") or number == 1:
                raise BadWireLog(f"{path}, line {number}: {exc}") from exc


class _Builder:
    """Makes a ``PortRecording`` of the events of one port."""

    def __init__(self, port: str, begun_mono_s: float) -> None:
        self.recording = PortRecording(port=port, absent_s=0.0, sessions=[])
        self.last_mono_s = begun_mono_s
        self._anchor_mono_s = begun_mono_s  # what delays count from: the last question, or the plugging in
        self._gone_mono_s: float | None = begun_mono_s  # since when the port is not there
        self._awaiting = False  # a question is unanswered: bytes are read the moment they come
        self._receiver = LineReceiver()

    def take(self, event: WireEvent) -> None:
        """Add the next event."""
        if event.what in (wire_log.REFUSED, wire_log.FAILED):
            self._vanish(event.t_mono_s)
        elif event.what != wire_log.CLOSED:
            self._appear(event.t_mono_s)
        if event.what == wire_log.SENT:
            self._ask(event)
        elif event.what == wire_log.RECEIVED:
            self._answer(event)
        self.last_mono_s = event.t_mono_s

    def _appear(self, seen_mono_s: float) -> None:
        if self._gone_mono_s is None:
            return
        sessions = self.recording.sessions
        first_event = not sessions and self._gone_mono_s == self.last_mono_s
        back_mono_s = seen_mono_s if first_event else (self.last_mono_s + seen_mono_s) / 2
        if sessions:
            sessions[-1].absent_s = back_mono_s - self._gone_mono_s
        else:
            self.recording.absent_s = 0.0 if first_event else back_mono_s - self._gone_mono_s
        sessions.append(Session())
        self._anchor_mono_s, self._gone_mono_s, self._awaiting = back_mono_s, None, False
        self._receiver = LineReceiver()

    def _vanish(self, noticed_mono_s: float) -> None:
        if self._gone_mono_s is None:
            self._gone_mono_s = self._happened_mono_s(noticed_mono_s)
            self.recording.sessions[-1].vanishes_after_s = self._gone_mono_s - self._anchor_mono_s

    def _ask(self, event: WireEvent) -> None:
        for text in self._receiver.lines(event.data):
            self.recording.sessions[-1].exchanges.append(Exchange(text=text))
            self._anchor_mono_s, self._awaiting = event.t_mono_s, "?" in text

    def _answer(self, event: WireEvent) -> None:
        session = self.recording.sessions[-1]
        answer = (self._happened_mono_s(event.t_mono_s) - self._anchor_mono_s, event.data)
        (session.exchanges[-1].answers if session.exchanges else session.power_on).append(answer)
        self._awaiting = self._awaiting and b"\n" not in event.data

    def _happened_mono_s(self, noticed_mono_s: float) -> float:
        return noticed_mono_s if self._awaiting else (self.last_mono_s + noticed_mono_s) / 2


class ReplayedMeter:
    """The far end of a port while one session after the other is played. Thread-safe."""

    def __init__(self, sessions: Sequence[Session], clock: Clock) -> None:
        self.clock = clock
        self.on_output: Callable[[], None] = lambda: None
        self.played = threading.Event()  # the last question of the session has come
        self.played_mono_s = 0.0
        self.left_out = 0
        self.strange = 0
        self._everything = [exchange for session in sessions for exchange in session.exchanges]
        self._lock = threading.Lock()
        self._session = Session()
        self._next = 0
        self._begun = 0  # how many exchanges the earlier sessions had
        self._numbers = itertools.count()
        self._outbox: list[tuple[float, int, bytes]] = []
        self._receiver = LineReceiver()

    def begin(self, session: Session) -> None:
        """Play this session from now on: its port is about to be plugged in."""
        with self._lock:
            self._begun += len(self._session.exchanges)
            self._session, self._next = session, 0
            self._receiver = LineReceiver()
            self._outbox.clear()
            self.played.clear()
            self._answer_with(session.power_on)
            self._note_end()

    def feed(self, data: bytes) -> None:
        """Take bytes that arrive now."""
        with self._lock:
            for text in self._receiver.lines(data):
                self._take(text)

    def take_due(self) -> bytes:
        """Return, and forget, all bytes whose time to be sent has come."""
        with self._lock:
            now_mono_s = self.clock.mono_s()
            due = []
            while self._outbox and self._outbox[0][0] <= now_mono_s:
                due.append(heapq.heappop(self._outbox)[2])
            return b"".join(due)

    def next_due_mono_s(self) -> float | None:
        """Return when to call ``take_due()`` next; ``None`` when nothing will come by itself."""
        with self._lock:
            return self._outbox[0][0] if self._outbox else None

    def _take(self, text: str) -> None:
        exchanges = self._session.exchanges
        for number in range(self._next, min(self._next + _AHEAD, len(exchanges))):
            if exchanges[number].text == text:
                self.left_out += number - self._next
                self._next = number + 1
                self._answer_with(exchanges[number].answers)
                self._note_end()
                return
        self.strange += not (self.played.is_set() and self._session.vanishes_after_s is None)
        place = self._begun + self._next
        known = [*reversed(self._everything[:place]), *self._everything[place:]]
        answers = next((exchange.answers for exchange in known if exchange.text == text), [])
        self._answer_with(answers)

    def _answer_with(self, answers: Iterable[tuple[float, bytes]]) -> None:
        now_mono_s = self.clock.mono_s()
        for delay_s, data in answers:
            heapq.heappush(self._outbox, (now_mono_s + delay_s, next(self._numbers), data))

    def _note_end(self) -> None:
        if self._next == len(self._session.exchanges) and not self.played.is_set():
            self.played_mono_s = self.clock.mono_s()
            self.played.set()


class ReplayedPort:
    """One recorded port, plugged in and out as it was. A context manager; ``address`` is known inside it.

    ``link`` is the name of a pty, which keeps it when it comes back; ``None`` makes a TCP port.
    """

    def __init__(self, recording: PortRecording, link: Path | None, clock: Clock) -> None:
        self.recording = recording
        self.meter = ReplayedMeter(recording.sessions, clock)
        self.ended = threading.Event()
        """Set when all of the recording has been played."""
        # A ReplayedMeter has all that a port uses of its meter: a clock, on_output, feed(), and two for what is due.
        far_end = cast(VirtualMeter, self.meter)
        self._port: Port = TcpPort(far_end) if link is None else PtyPort(far_end, link=link)
        self._clock = clock
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._play, name=f"replay of {recording.port}", daemon=True)

    @property
    def address(self) -> str:
        """The port's name, to be given to the daemon."""
        return self._port.address

    def __enter__(self) -> Self:
        if self.recording.absent_s or not self.recording.sessions:
            self._port.start()  # so that it has a name
            self._port.unplug()
        else:
            self._plug_in(self.recording.sessions[0])
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stop.set()
        self.meter.played.set()
        self._thread.join(_ENDS_WITHIN_S)
        self._port.stop()

    def report(self) -> str:
        """Return in words how truly the recording was played."""
        return f"questions left out: {self.meter.left_out}, of its own: {self.meter.strange}"

    def _plug_in(self, session: Session) -> None:
        self.meter.begin(session)
        self._port.plug_in()

    def _play(self) -> None:
        absent_s: float | None = self.recording.absent_s
        for number, session in enumerate(self.recording.sessions):
            if number or absent_s:
                if self._stop.wait(absent_s):
                    return
                self._plug_in(session)
            self.meter.played.wait()
            if session.vanishes_after_s is None or self._stop.is_set():
                break
            if self._stop.wait(self._clock.timeout_s(self.meter.played_mono_s + session.vanishes_after_s)):
                break
            self._port.unplug()
            absent_s = session.absent_s
        if not self._stop.is_set():
            self.ended.set()
