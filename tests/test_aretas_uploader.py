"""Delivery to a virtual cloud over real sockets, from a real database: what is sent when, and settled by what."""

from __future__ import annotations

import logging
import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from aretas_api import AretasClient, TryLater
from aretas_uploader import AretasUploader
from clock import Clock
from ledger import Tally
from measurements import Datum, Device
from simulator.cloud import VirtualCloud
from simulator.cloud_http import HTML_PAGE, Fault, Reply, lose_reply, never_answer, reset_mid_reply
from tests.clocks import LeapingClock, ManualClock
from tests.rig import MAC, wait_for
from tests.test_outbox import Box, summary
from time_keeper import TimeKeeper


@contextmanager
def uploading(
    cloud: VirtualCloud, folder: Path, *, clock: Clock | None = None, **options: Any
) -> Iterator[tuple[AretasUploader, Box]]:
    clock = clock or Clock()
    outbox = Box(folder, clock=clock)
    outbox._device = Device(mac=MAC, voltage_type=532, current_type=531, power_type=533)
    timeouts: dict[str, Any] = {"connect_timeout_s": 0.3, "read_timeout_s": 0.3, "total_timeout_s": 0.6}
    time_keeper = TimeKeeper(clock, 600)
    client = AretasClient(cloud.url, cloud.username, cloud.password, on_answer=time_keeper.heed_answer, **timeouts)
    uploader = AretasUploader(client, outbox, time_keeper, clock, **{"jitter": lambda: 0.0, "pause_s": 0.0, **options})
    try:
        yield uploader, outbox
    finally:
        client.close()


def arrived(cloud: VirtualCloud) -> list[int]:
    """Return the timestamps in seconds of what has arrived, in order of arrival."""
    return [each.datum.timestamp_utc_ms // 1000 for each in cloud.received]


def drain(uploader: AretasUploader, outbox: Box) -> None:
    while outbox.lend(1):
        uploader.send_once()


def test_the_newest_goes_first_and_what_has_waited_behind_it_oldest_first(tmp_path: Path) -> None:
    with VirtualCloud(macs=(MAC,)) as cloud, uploading(cloud, tmp_path) as (uploader, outbox):
        outbox.close_number(*range(1, 1201))
        uploader.send_once()
        assert arrived(cloud) == [1200]
        uploader.send_once()
        outbox.close_number(1201)
        drain(uploader, outbox)
        assert arrived(cloud) == [1200, *range(1, 501), 1201, *range(501, 1200)]
        assert cloud.log_in_count == 1
        assert cloud.connection_count == 1
    assert outbox.tally() == Tally(made=1201, delivered=1201)


def test_there_is_a_pause_between_batches_but_not_before_the_newest(tmp_path: Path) -> None:
    options: dict[str, Any] = {"batch": 10, "pause_s": 0.25}
    with VirtualCloud(macs=(MAC,)) as cloud, uploading(cloud, tmp_path, **options) as (uploader, outbox):
        outbox.close_number(*range(1, 31))
        assert [uploader.send_once() for _ in range(3)] == [0.0, 0.25, 0.25]
        outbox.close_number(31)
        assert uploader.send_once() == 0.0


def test_the_newest_is_delivered_within_a_second_even_while_a_backlog_drains(tmp_path: Path) -> None:
    clock = Clock()
    with VirtualCloud(macs=(MAC,)) as cloud, uploading(cloud, tmp_path, batch=10, pause_s=0.25) as (uploader, outbox):
        outbox.close_number(*range(1, 2000))
        uploader.start(lambda: pytest.fail("it crashed"))
        wait_for(lambda: len(cloud.received) > 20)
        for number in range(5000, 5003):
            made_mono_s = clock.mono_s()
            outbox.close_number(number)
            wait_for(lambda: number in arrived(cloud), within_s=1.0)  # noqa: B023  (called before the loop goes on)
            assert clock.mono_s() - made_mono_s < 1.0
        assert outbox.tally().waiting > 1000
        uploader.request_stop()
        assert uploader.join(clock.mono_s() + 5)


def test_an_expired_token_is_renewed_once(tmp_path: Path) -> None:
    with VirtualCloud(macs=(MAC,)) as cloud, uploading(cloud, tmp_path) as (uploader, outbox):
        for number in range(1, 4):
            outbox.close_number(number)
            if number > 1:
                cloud.expire_tokens()
            assert uploader.send_once() == 0.0
        assert cloud.log_in_count == 3
        assert arrived(cloud) == [1, 2, 3]


@pytest.mark.parametrize("fault", [Reply(status=503), Reply(status=408), HTML_PAGE, never_answer, reset_mid_reply])
def test_a_failed_batch_is_kept_and_sent_again_after_a_growing_wait(tmp_path: Path, fault: Fault) -> None:
    with VirtualCloud(macs=(MAC,)) as cloud, uploading(cloud, tmp_path) as (uploader, outbox):
        cloud.misbehave(fault, times=None)
        outbox.close_number(1, 2)
        assert [uploader.send_once() for _ in range(3)] == [1.0, 2.0, 2.0]
        assert outbox.tally().waiting == 2
        cloud.behave()
        drain(uploader, outbox)
        assert sorted(each.timestamp_utc_ms for each in cloud.stored) == [1000, 2000]


def test_retry_after_is_heeded(tmp_path: Path) -> None:
    with VirtualCloud(macs=(MAC,)) as cloud, uploading(cloud, tmp_path) as (uploader, outbox):
        cloud.misbehave(Reply(status=429, retry_after="40"), call="ingest/std/batch")
        outbox.close_number(1)
        assert uploader.send_once() == 40.0


class _Absent:
    """A cloud that is away until ``back_mono_s``: an attempt until then takes ``fails_after_s`` and fails."""

    def __init__(self, clock: ManualClock, back_mono_s: float, fails_after_s: float) -> None:
        self._clock, self._back_mono_s, self._fails_after_s = clock, back_mono_s, fails_after_s
        self.waits_s: list[float] = []
        self.first_attempt_mono_s: float | None = None

    def send_batch(self, data: Sequence[Datum]) -> None:
        if self._clock.mono_s() >= self._back_mono_s:
            self.first_attempt_mono_s = self._clock.mono_s()
            return
        self._clock.advance(self._fails_after_s)
        raise TryLater("no connection")


@pytest.mark.parametrize("jitter", [0.0, 0.4, 0.999])
@pytest.mark.parametrize("fails_after_s", [0.0, 0.3, 3.0, 8.0])
def test_after_an_outage_of_d_seconds_the_first_attempt_comes_within_10_s_or_d(
    tmp_path: Path, fails_after_s: float, jitter: float
) -> None:
    for outage_s in (0.5, 3.0, 9.0, 10.0, 11.0, 17.0, 18.5, 25.0, 40.0, 100.0, 333.0, 1000.0, 20_000.0):
        clock = ManualClock()
        began_mono_s = clock.mono_s()
        client: Any = _Absent(clock, began_mono_s + outage_s, fails_after_s)
        outbox = Box(tmp_path, clock=clock)
        outbox.close_number(round(outage_s * 100))
        uploader = AretasUploader(client, outbox, TimeKeeper(clock, 600), clock, jitter=lambda: jitter)
        waits_s = []
        while client.first_attempt_mono_s is None:
            waits_s.append(uploader.send_once())
            clock.advance(waits_s[-1])
        assert client.first_attempt_mono_s - (began_mono_s + outage_s) <= max(10.0, outage_s) + 1e-6
        assert max(waits_s) <= 300.0
        assert len(waits_s) < 12 + 20 * math.log2(outage_s + 2) + outage_s / 220  # it does not knock all the time
        outbox.close()


def test_a_lost_reply_leads_to_an_identical_duplicate_and_to_nothing_else(tmp_path: Path) -> None:
    with VirtualCloud(macs=(MAC,)) as cloud, uploading(cloud, tmp_path) as (uploader, outbox):
        cloud.misbehave(lose_reply, call="ingest/std/batch", times=2)
        outbox.close_number(1)
        while outbox.lend(1):
            uploader.send_once()
        assert len(cloud.received) > 1
        assert len(cloud.stored) == 1
        assert len({each.datum for each in cloud.received}) == 1


def test_an_outage_is_told_once_and_summed_up_when_all_is_delivered(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    with VirtualCloud(macs=(MAC,)) as cloud, uploading(cloud, tmp_path) as (uploader, outbox):
        cloud.stop()
        outbox.close_number(1)
        for number in range(2, 6):
            uploader.send_once()
            outbox.close_number(number)
        cloud.start()
        drain(uploader, outbox)
    lines = [record.getMessage() for record in caplog.records if record.name in ("aretas_uploader", "report_lines")]
    assert len(lines) == 3
    assert "kept and sent later" in lines[0]
    assert "answers again" in lines[1]
    assert "4 readings had queued, 0 were lost; all are delivered after" in lines[2]


def test_a_wrong_password_is_tried_once_in_five_minutes_and_loses_nothing(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with VirtualCloud(macs=(MAC,), password="another-word") as cloud, uploading(cloud, tmp_path) as (uploader, outbox):
        cloud.password, wrong = "changed-meanwhile", cloud.password
        outbox.close_number(1)
        assert uploader.send_once() == 300.0
        assert cloud.log_in_count == 1
        assert outbox.tally().waiting == 1
    assert "API_PASSWORD" in caplog.text
    assert wrong not in caplog.text


def test_an_unregistered_device_keeps_everything_and_tells_what_to_check(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    clock = ManualClock()
    with VirtualCloud(macs=(999,)) as cloud, uploading(cloud, tmp_path, clock=clock) as (uploader, outbox):
        outbox.close_number(1, 2, 3)
        requests = []
        for _ in range(200):
            uploader.send_once()
            clock.advance(1.0)
            requests.append(cloud.calls.get("ingest/std/batch", 0))
        assert requests[0] == requests[58] == 1
        assert requests[-1] == 4  # every 60 s
        assert outbox.tally().waiting == 3
        cloud.macs = frozenset({MAC})
        clock.advance(60.0)
        drain(uploader, outbox)
        assert len(cloud.received) == 3
    assert caplog.text.count("check the number (MAC)") == 1


def test_an_unregistered_device_does_not_hold_up_another(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    clock = ManualClock()
    with VirtualCloud(macs=(MAC,)) as cloud, uploading(cloud, tmp_path, clock=clock) as (uploader, outbox):
        outbox._device = Device(mac=1, voltage_type=532, current_type=531, power_type=533)
        outbox.close_number(*range(1, 11))
        outbox._device = Device(mac=MAC, voltage_type=532, current_type=531, power_type=533)
        outbox.close_number(*range(11, 31))
        for number in range(31, 41):
            outbox.close_number(number)
            uploader.send_once()
            uploader.send_once()
            clock.advance(30.0)
        assert sorted(arrived(cloud)) == list(range(11, 41))
        assert outbox.tally() == Tally(made=40, delivered=30, waiting=10)
    assert caplog.text.count("device 1: ") == 1


def test_a_refused_reading_is_set_aside_and_takes_no_other_with_it(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with VirtualCloud(macs=(MAC,)) as cloud, uploading(cloud, tmp_path) as (uploader, outbox):
        cloud.ranges[532] = (0.0, 62.0)
        outbox.close_number(*range(1, 6))
        outbox.close_number(6, of=summary(500.0, 1.0, 0.5))
        outbox.close_number(*range(7, 12))
        drain(uploader, outbox)
        assert sorted(arrived(cloud)) == [1, 2, 3, 4, 5, 6, 6, 7, 8, 9, 10, 11]
    assert outbox.tally() == Tally(made=13, delivered=12, rejected=1)
    assert caplog.text.count("data exceeds allowed range!") == 1
    with outbox.store.reading() as cursor:
        (row,) = cursor.execute("SELECT type, end_utc_ms, data, message FROM rejected").fetchall()
    assert row[:3] == (532, 6000, 500.0)
    assert "data exceeds allowed range!" in row[3]


def test_the_newest_does_not_wait_while_a_refused_reading_is_looked_for(tmp_path: Path) -> None:
    with VirtualCloud(macs=(MAC,)) as cloud, uploading(cloud, tmp_path) as (uploader, outbox):
        cloud.ranges[532] = (0.0, 62.0)
        outbox.close_number(*range(1, 401), of=summary(500.0))
        steps = 0
        while outbox.lend(1):
            before = cloud.calls.get("ingest/std/batch", 0)
            if steps % 50 == 0:
                outbox.close_number(1000 + steps)
                uploader.send_once()
                assert arrived(cloud)[-1] == 1000 + steps
            else:
                uploader.send_once()
            assert cloud.calls.get("ingest/std/batch", 0) == before + 1
            steps += 1
        assert steps < 2 * 400 + 50
    assert outbox.tally().rejected == 400


def test_too_large_a_batch_is_halved_until_it_fits_and_larger_ones_are_tried_again(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with VirtualCloud(macs=(MAC,)) as cloud, uploading(cloud, tmp_path, batch=8) as (uploader, outbox):
        outbox.close_number(*range(1, 10))
        cloud.largest_batch = 2
        drain(uploader, outbox)
        assert arrived(cloud) == [9, *range(1, 9)]
        cloud.largest_batch = 100
        outbox.close_number(*range(10, 2000))
        drain(uploader, outbox)
        assert uploader._batch == 8
        assert outbox.tally() == Tally(made=1999, delivered=1999)
    assert caplog.text.count("smaller batches are sent") == 1


def test_one_reading_that_is_too_large_is_the_server_s_fault_and_is_kept(tmp_path: Path) -> None:
    with VirtualCloud(macs=(MAC,)) as cloud, uploading(cloud, tmp_path) as (uploader, outbox):
        cloud.largest_batch = 0
        outbox.close_number(1)
        assert [uploader.send_once() for _ in range(2)] == [1.0, 2.0]
        assert outbox.tally() == Tally(made=1, waiting=1)


def test_a_batch_is_never_larger_than_configured(tmp_path: Path) -> None:
    with VirtualCloud(macs=(MAC,)) as cloud, uploading(cloud, tmp_path, batch=2) as (uploader, outbox):
        outbox.close_number(*range(1, 100))
        cloud.largest_batch = 2
        cloud.misbehave(Reply(status=503), times=3)
        drain(uploader, outbox)
        assert len(cloud.received) == 99
    assert uploader._sizes.trouble is None


def test_while_the_time_is_not_known_a_wrong_password_is_tried_once_all_the_same(tmp_path: Path) -> None:
    clock = LeapingClock()
    clock.synchronised = False
    with VirtualCloud(macs=(MAC,)) as cloud, uploading(cloud, tmp_path, clock=clock) as (uploader, outbox):
        cloud.password = "changed-meanwhile"
        cloud.date_shift_s = None
        outbox.close_number(1)
        began_mono_s = clock.mono_s()
        for _ in range(8):
            uploader.step()
        assert cloud.log_in_count <= 1 + (clock.mono_s() - began_mono_s) / 300


def test_the_thread_delivers_at_once_and_stops_at_once_even_in_a_long_wait(tmp_path: Path) -> None:
    clock = Clock()
    with VirtualCloud(macs=(MAC,)) as cloud, uploading(cloud, tmp_path) as (uploader, outbox):
        uploader.start(lambda: pytest.fail("it crashed"))
        outbox.close_number(1)
        wait_for(lambda: cloud.received)
        cloud.stop()
        outbox.close_number(2)
        wait_for(lambda: uploader._failing_since_mono_s is not None)
        started_mono_s = clock.mono_s()
        uploader.request_stop()
        assert uploader.join(clock.mono_s() + 5)
        assert clock.mono_s() - started_mono_s < 2.0


def test_the_last_send_happens_on_stop(tmp_path: Path) -> None:
    with VirtualCloud(macs=(MAC,)) as cloud, uploading(cloud, tmp_path) as (uploader, outbox):
        cloud.stop()
        outbox.close_number(1)
        uploader.start(lambda: pytest.fail("it crashed"))
        wait_for(lambda: uploader._failing_since_mono_s is not None)
        cloud.start()
        uploader.request_stop()
        assert uploader.join(Clock().mono_s() + 5)
        assert arrived(cloud) == [1]
