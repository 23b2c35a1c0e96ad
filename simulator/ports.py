"""Serial ports with a virtual meter at the other end: a pty, or a TCP socket where there are no ptys (Windows).

A port is plugged in by ``start()`` and gone after ``unplug()``, as a USB adapter is; ``plug_in()`` brings it back.
While it is plugged in, one thread of its own moves the bytes: it sleeps until bytes arrive, the meter's next reply is
due or the port is pulled, so an idle port costs nothing and no reply is kept waiting.

Bytes nobody takes are dropped, as on a wire: a full buffer never blocks the meter. What the meter says while the port
is unplugged is lost.
"""

from __future__ import annotations

import os
import select
import socket
import sys
import threading
from abc import ABC, abstractmethod
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Self

from .meter import VirtualMeter

if sys.platform != "win32":
    import fcntl
    import tty

HAS_PTYS = sys.platform != "win32"

_CHUNK_BYTES = 4096
_LONGEST_WAIT_S = 60.0
_LOOPBACK = "127.0.0.1"
_NOBODY_MAY_WRITE = "/proc/sys/kernel/osrelease"  # refused to root as well, to whom a file's mode means nothing


class Line(ABC):
    """The meter's end of a plugged-in port. No method blocks."""

    @abstractmethod
    def waits_on(self) -> list[int]:
        """Return the file descriptors that become readable when ``receive()`` has something to do."""

    @abstractmethod
    def receive(self) -> bytes:
        """Return the bytes that have arrived, empty if none have."""

    @abstractmethod
    def send(self, data: bytes) -> None:
        """Send as much as whoever listens can take; the rest is lost."""

    @abstractmethod
    def close(self) -> None:
        """Hang up."""


class Port(ABC):
    """A port that can be plugged in and out. A context manager: plugged in on entry, out at the end."""

    def __init__(self, meter: VirtualMeter) -> None:
        self.meter = meter
        self._pump: _Pump | None = None

    @property
    @abstractmethod
    def address(self) -> str:
        """The port's name, to be given to the daemon. Known after ``start()``, and kept while it is unplugged."""

    @abstractmethod
    def _open(self) -> Line:
        """Make the port appear. Raises ``OSError`` when the system has none left."""

    @abstractmethod
    def _vanish(self) -> None:
        """Remove what is left of the port's name, if anything."""

    def start(self) -> None:
        """Plug the port in for the first time."""
        self.plug_in()

    def stop(self) -> None:
        """Unplug the port for good. May be called again."""
        self.unplug()

    def plug_in(self) -> None:
        """Make the port appear. Does nothing when it is there. Raises ``OSError`` when the system has none left."""
        if self._pump is None:
            self.meter.take_due()  # said while nobody could hear it
            self._pump = _Pump(self._open(), self.meter, *socket.socketpair())
            self.meter.on_output = self._pump.wake
            self._pump.start()

    def unplug(self) -> None:
        """Make the port vanish under whoever has it open; gone when this returns. Does nothing when it is gone."""
        if self._pump is not None:
            self.meter.on_output = lambda: None
            self._pump.stop()
            self._pump = None
            self._vanish()

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()


class _Pump(threading.Thread):
    """The thread of a plugged-in port. It owns the line and closes it at its end."""

    def __init__(self, line: Line, meter: VirtualMeter, alarm: socket.socket, bell: socket.socket) -> None:
        super().__init__(name="simulated serial port", daemon=True)
        self._line = line
        self._meter = meter
        self._stop_asked = threading.Event()
        self._alarm, self._bell = alarm, bell
        self._alarm.setblocking(False)
        self._bell.setblocking(False)

    def run(self) -> None:
        with self._alarm, self._bell:
            while not self._stop_asked.is_set():
                self._step()
            self._line.close()

    def _step(self) -> None:
        due_mono_s = self._meter.next_due_mono_s()
        timeout_s = _LONGEST_WAIT_S if due_mono_s is None else self._meter.clock.timeout_s(due_mono_s)
        # select() and not a selector: epoll rounds its timeout up to whole milliseconds.
        ready, _, _ = select.select([self._alarm.fileno(), *self._line.waits_on()], [], [], timeout_s)
        if self._alarm.fileno() in ready:
            self._alarm.recv(_CHUNK_BYTES)
            ready.remove(self._alarm.fileno())
        if ready and (data := self._line.receive()):
            self._meter.feed(data)
        if data := self._meter.take_due():
            self._line.send(data)

    def wake(self) -> None:
        """End the present wait."""
        with suppress(OSError):  # the bell is full: it rings already; or closed: there is nobody to wake
            self._bell.send(b"!")

    def stop(self) -> None:
        """Close the line and end the thread. Blocks until it has ended, which is at once."""
        self._stop_asked.set()
        self.wake()
        self.join(_LONGEST_WAIT_S)


class PtyPort(Port):
    """A pseudo-terminal: what ``/dev/ttyUSB0`` is to the daemon. Linux and macOS.

    With ``link`` the port has a name of its own choice, a symbolic link that comes and goes with it; change ``link``
    while it is unplugged and it returns under another name. Without, the system chooses a name each time.
    ``forbidden``, changed while it is unplugged, makes it return as a port that nobody may open; it needs a link.
    """

    def __init__(self, meter: VirtualMeter, *, link: Path | None = None) -> None:
        super().__init__(meter)
        self.link = link
        self.forbidden = False
        self._path = ""
        self._held = False
        self._line: _PtyLine | None = None

    @property
    def path(self) -> str:
        """The device file to give to the daemon."""
        return str(self.link or self._path)

    @property
    def address(self) -> str:
        """The same as ``path``."""
        return self.path

    @property
    def held(self) -> bool:
        """Whether another program holds the port, so that nobody else can open it; may be changed at any time.

        Raises ``BlockingIOError`` when it is plugged in and the daemon holds it.
        """
        return self._held

    @held.setter
    def held(self, held: bool) -> None:
        if self._line is not None:
            self._line.hold(held)
        self._held = held

    def _open(self) -> Line:
        master, slave = os.openpty()
        self._line = line = _PtyLine(master, slave)
        line.hold(self._held)
        self._path = os.ttyname(slave)
        if self.link is not None:
            try:
                if self.link.is_symlink():  # left behind by a run that was killed
                    self.link.unlink()
                self.link.symlink_to(_NOBODY_MAY_WRITE if self.forbidden else self._path)
            except OSError:
                line.close()
                raise
        return line

    def _vanish(self) -> None:
        self._line = None
        if self.link is not None:
            self.link.unlink(missing_ok=True)


class _PtyLine(Line):
    """A pty in raw mode. The slave is kept open here: else the daemon's closing of it would be an error on ours."""

    def __init__(self, master: int, slave: int) -> None:
        self._master, self._slave = master, slave
        tty.setraw(slave)
        os.set_blocking(master, False)

    def hold(self, held: bool) -> None:
        """Hold the port as a program with pyserial's ``exclusive=True`` does, or let it go."""
        fcntl.flock(self._slave, fcntl.LOCK_EX | fcntl.LOCK_NB if held else fcntl.LOCK_UN)

    def waits_on(self) -> list[int]:
        return [self._master]

    def receive(self) -> bytes:
        return os.read(self._master, _CHUNK_BYTES)

    def send(self, data: bytes) -> None:
        with suppress(BlockingIOError):  # nobody reads, and the buffer is full
            os.write(self._master, data)

    def close(self) -> None:
        os.close(self._master)
        os.close(self._slave)


class TcpPort(Port):
    """A TCP server on the loopback interface, for pyserial's ``socket://`` ports. Works everywhere.

    One connection at a time, as a serial port has one owner; a second one waits. The number stays the same from one
    plugging in to the next.
    """

    def __init__(self, meter: VirtualMeter) -> None:
        super().__init__(meter)
        self._number = 0

    @property
    def url(self) -> str:
        """The port's URL for pyserial: ``socket://127.0.0.1:PORT``."""
        return f"socket://{_LOOPBACK}:{self._number}"

    @property
    def address(self) -> str:
        """The same as ``url``."""
        return self.url

    def _open(self) -> Line:
        listener = socket.create_server((_LOOPBACK, self._number), backlog=1)
        self._number = int(listener.getsockname()[1])
        return _TcpLine(listener)

    def _vanish(self) -> None:
        """The number is all there is to the name, and closing the line has freed it."""


class _TcpLine(Line):
    """A listening socket, or the one connection made to it."""

    def __init__(self, listener: socket.socket) -> None:
        self._listener = listener
        listener.setblocking(False)
        self._connection: socket.socket | None = None

    def waits_on(self) -> list[int]:
        return [(self._connection or self._listener).fileno()]

    def receive(self) -> bytes:
        if self._connection is None:
            self._accept()
            return b""
        try:
            data = self._connection.recv(_CHUNK_BYTES)
        except BlockingIOError:
            return b""
        except OSError:
            data = b""
        if not data:
            self._drop_connection()
        return data

    def send(self, data: bytes) -> None:
        if self._connection is not None:
            with suppress(OSError):  # nobody reads, or the other end is gone, which receive() will see
                self._connection.send(data)

    def close(self) -> None:
        self._drop_connection()
        self._listener.close()

    def _accept(self) -> None:
        with suppress(OSError):  # who knocked is gone again
            self._connection, _ = self._listener.accept()
            self._connection.setblocking(False)
            self._connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def _drop_connection(self) -> None:
        if self._connection is not None:
            self._connection.close()
            self._connection = None


def make_port(meter: VirtualMeter) -> Port:
    """Return a port of the kind this system has: a pty, or a TCP port on Windows."""
    return PtyPort(meter) if HAS_PTYS else TcpPort(meter)
