"""What happens to a ``VirtualSite`` beside its meters: troubles of the cloud, of Redis and of the wall clock, by name.

Each begins when it is called and returns what ends it; ``chance`` decides what the name leaves open. The meters'
troubles are the simulator's (``simulator/mishaps.py``).
"""

from __future__ import annotations

import math
import random
from collections import Counter
from collections.abc import Callable, Mapping
from typing import Protocol

import redis

from aretas_api.transport import Answer, Question
from benchmarks.virtual_site import VirtualSite
from simulator.fault_schedule import FaultSchedule, random_episodes
from simulator.mishaps import End
from tests.redis_server import RedisServer

Trouble = Callable[[VirtualSite, random.Random], End]

_HTML = b"<!DOCTYPE html><html><body>Welcome to our Wi-Fi</body></html>"
_POWER_TYPE = 533


class Stop(Protocol):
    """An event of the virtual clock."""

    def wait(self, timeout: float | None = None) -> bool:
        """Wait until it has happened, ``timeout`` seconds at most; return whether it has."""


def _instead(answer: Callable[[VirtualSite, Question, random.Random], Answer | None]) -> Trouble:
    """Return a trouble that does something else than the exchange it is asked for."""

    def begin(site: VirtualSite, chance: random.Random) -> End:
        site.line.trouble = lambda question: answer(site, question, chance)

        def end() -> None:
            site.line.trouble = lambda _question: None

        return end

    return begin


def _status(status: int, retry_after_s: float | None = None, body: bytes = b"") -> Trouble:
    answer = Answer(status=status, body=body, retry_after_s=retry_after_s)
    return _instead(lambda _site, _question, _chance: answer)


def _no_answer(after_s: float, why: str) -> Trouble:
    return _instead(lambda site, _question, _chance: site.line.no_answer(after_s, why))


def _lost(site: VirtualSite, question: Question, _chance: random.Random) -> Answer | None:
    """Do what is asked for and lose the answer."""
    site.line.right_answer(question)
    return site.line.no_answer(0.0, "Connection reset by peer")


def _late(site: VirtualSite, _question: Question, _chance: random.Random) -> Answer | None:
    site.line.wait(7.0)
    return None


def _every_other(site: VirtualSite, _question: Question, chance: random.Random) -> Answer | None:
    return site.line.no_answer(0.0, "Connection reset by peer") if chance.random() < 0.5 else None


def _changed(name: str, value: object) -> Trouble:
    """Return a trouble that is a setting of the cloud."""

    def begin(site: VirtualSite, _chance: random.Random) -> End:
        before = getattr(site.cloud, name)
        setattr(site.cloud, name, value)
        return lambda: setattr(site.cloud, name, before)

    return begin


CLOUD: dict[str, Trouble] = {
    "cloud down": _no_answer(0.0, "Connection refused"),
    "cloud silent": _no_answer(8.0, "silence for 5 s"),
    "cloud slow": _instead(_late),
    "cloud resets": _instead(_lost),
    "every other request fails": _instead(_every_other),
    "cloud 401": _status(401),
    "cloud 429": _status(429, 60.0),
    "cloud 500": _status(500),
    "cloud 503": _status(503),
    "another page answers": _status(200, body=_HTML),
    "device not registered": _changed("macs", frozenset()),
    "readings refused": _changed("ranges", {_POWER_TYPE: (0.0, math.inf)}),
    "batches too large": _changed("largest_batch", 2),
}
"""Every trouble of the cloud, by the name that tables and logs show."""


def redis_troubles(server: RedisServer) -> dict[str, Trouble]:
    """Return every trouble of a Redis server that the daemon writes to."""

    def down(_site: VirtualSite, _chance: random.Random) -> End:
        server.stop()
        return server.start

    def other_password(_site: VirtualSite, _chance: random.Random) -> End:
        _set_password(server, None, "another")
        return lambda: _set_password(server, "another", "")

    return {"Redis down": down, "Redis has another password": other_password}


def _set_password(server: RedisServer, old: str | None, new: str) -> None:
    with redis.Redis(host="127.0.0.1", port=server.port, password=old) as client:
        client.config_set("requirepass", new)
        client.execute_command("CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes")


def _wrong_clock(site: VirtualSite, chance: random.Random) -> End:
    """Set the wall clock wrong, by seconds to years; in the end NTP sets it right."""
    return set_clock(site, chance.choice((-1, 1)) * 10 ** chance.uniform(1.0, 8.0))


def set_clock(site: VirtualSite, error_s: float) -> End:
    """Have the wall clock be wrong, which the kernel does not vouch for, until NTP sets it right."""
    site.clock.synchronised, site.clock.error_s = False, error_s

    def end() -> None:
        site.clock.error_s, site.clock.synchronised = 0.0, True

    return end


CLOCK: dict[str, Trouble] = {
    "clock wrong": _wrong_clock,
    "NTP lost": lambda site, _chance: set_clock(site, 0.0),
}


def play_troubles(
    site: VirtualSite,
    troubles: Mapping[str, Trouble],
    stop: Stop,
    played: Counter[str],
    *,
    seed: int,
    gap_s: float,
    lasts_s: tuple[float, float],
) -> None:
    """Have one trouble after the other, ``gap_s`` apart on average, until ``stop``. ``played`` counts them."""
    chance = random.Random(seed)
    while not stop.wait(chance.expovariate(1 / gap_s)):
        name = chance.choice(list(troubles))
        end = troubles[name](site, chance)
        played[name] += 1
        shortest_s, longest_s = lasts_s
        stop.wait(shortest_s * (longest_s / shortest_s) ** chance.random())
        end()


def play_mishaps(site: VirtualSite, stop: Stop, played: Counter[str], *, seed: int, gap_s: float) -> None:
    """Have one episode of mishaps of the meters after the other, ``gap_s`` apart on average, until ``stop``."""
    chance = random.Random(seed)
    for strikes in random_episodes(seed):
        if stop.wait(chance.expovariate(1 / gap_s)):
            return
        played.update(strike.kind for strike in strikes)
        FaultSchedule(site.pair, strikes, site.clock).play()
