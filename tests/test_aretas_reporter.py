"""Intervals closed on time, readings made by the rules, and delivery to a virtual cloud over real sockets."""

from __future__ import annotations

import logging
import math
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aretas_api import AretasClient
from aretas_reporter import AretasReporter, AretasUploader, summary_text
from averaging_buffer import AveragingBuffer
from clock import Clock
from measurements import Datum, Interval, IntervalSummary, PowerSample, Statistic
from outbox import Outbox, Tally
from settings import ApiSettings
from simulator.cloud import VirtualCloud
from simulator.cloud_http import HTML_PAGE, Fault, Reply, never_answer, reset_mid_reply
from tests.clocks import ManualClock
from tests.rig import MAC, wait_for

API = ApiSettings(url="http://127.0.0.1/", username="u", password="secret-word", report_interval_ms=2000)


def statistic(mean: float, count: int = 4) -> Statistic:
    return Statistic(mean=mean, minimum=mean, maximum=mean, count=count)


def reporter(
    clock: Clock, published: list[list[Datum]] | None = None
) -> tuple[AretasReporter, AveragingBuffer, Outbox]:
    buffer, outbox = AveragingBuffer(clock), Outbox(clock)
    publish = None if published is None else lambda readings: published.append(list(readings))
    return AretasReporter(MAC, API, buffer, outbox, clock, publish), buffer, outbox


def add(buffer: AveragingBuffer, start_mono_s: float, volts: float) -> None:
    buffer.begin(start_mono_s)
    buffer.complete(start_mono_s, PowerSample(start_mono_s=start_mono_s, voltage_v=volts))


def test_readings_share_the_timestamp_and_leave_out_what_has_no_value() -> None:
    make, _, _ = reporter(ManualClock())
    whole = IntervalSummary(
        end_utc_ms=4000, voltage_v=statistic(52.0), current_a=statistic(-3.0), power_kw=statistic(-0.156)
    )
    assert [(each.type, each.data, each.timestamp_utc_ms) for each in make.readings(whole)] == [
        (532, 52.0, 4000),
        (531, -3.0, 4000),
        (533, -0.156, 4000),
    ]
    part = IntervalSummary(end_utc_ms=4000, voltage_v=None, current_a=statistic(-3.0), power_kw=None)
    assert [each.type for each in make.readings(part)] == [531]


def test_the_line_of_a_report_reads_as_a_person_says_it() -> None:
    whole = IntervalSummary(
        end_utc_ms=0, voltage_v=statistic(52.11339), current_a=statistic(-20.4132), power_kw=statistic(-1.063802)
    )
    assert summary_text(whole) == "52.1134 V, -20.4132 A, -1.06380 kW (4 samples)"
    empty = IntervalSummary(end_utc_ms=0, voltage_v=None, current_a=None, power_kw=None)
    assert summary_text(empty) == "no voltage, no current, no power (0 samples)"


@given(st.integers(min_value=0, max_value=4_000_000_000_000), st.sampled_from([1000, 2000, 7000, 30_000, 86_400_000]))
def test_ends_lie_on_whole_multiples_and_no_end_comes_twice(now_utc_ms: int, interval_ms: int) -> None:
    clock = ManualClock(utc_s=now_utc_ms / 1000)
    api = ApiSettings(url="http://127.0.0.1/", username="u", password="secret-word", report_interval_ms=interval_ms)
    make = AretasReporter(MAC, api, AveragingBuffer(clock), Outbox(clock), clock)
    make.open_first_interval()
    ends = []
    for late_s in (0.0, 0.0004, -0.0004, 0.05):
        interval = make._interval
        assert interval is not None
        ends.append(interval.end_utc_ms)
        clock.advance(interval.end_mono_s - clock.mono_s() + late_s)
        make._interval = make._interval_from(interval.end_mono_s, previous_end_utc_ms=interval.end_utc_ms)
    assert ends[0] > now_utc_ms - 1e-3
    assert ends[0] - now_utc_ms <= interval_ms + 1
    assert ends == [ends[0] + number * interval_ms for number in range(4)]
    assert all(end % interval_ms == 0 for end in ends)


def test_an_interval_is_closed_at_its_end_and_the_next_begins_there() -> None:
    clock = Clock()
    published_mono_s: list[float] = []
    make, buffer, outbox = reporter(clock)
    make._publish = lambda _: published_mono_s.append(clock.mono_s())
    make.open_first_interval()
    first = make._interval
    assert first is not None
    add(buffer, clock.mono_s(), 50.0)
    while make._interval is first:
        make.step()
    assert 0 <= published_mono_s[0] - first.end_mono_s < 0.1
    second = make._interval
    assert second is not None
    assert (second.start_mono_s, second.end_utc_ms) == (first.end_mono_s, first.end_utc_ms + 2000)
    assert [each.datum.timestamp_utc_ms for each in outbox.lend(9)] == [first.end_utc_ms]


def test_a_stop_closes_the_open_interval_with_the_time_of_the_stop() -> None:
    clock = Clock()
    published: list[list[Datum]] = []
    make, buffer, outbox = reporter(clock, published)
    make.open_first_interval()
    add(buffer, clock.mono_s(), 50.0)
    before_utc_ms = math.floor(clock.utc_s() * 1000)
    make.finish()
    after_utc_ms = clock.utc_s() * 1000
    (lent,) = outbox.lend(9)
    assert before_utc_ms <= lent.datum.timestamp_utc_ms <= after_utc_ms
    assert published == [[lent.datum]]


@contextmanager
def uploading(cloud: VirtualCloud, **options: object) -> Iterator[tuple[AretasUploader, Outbox]]:
    clock = Clock()
    outbox = Outbox(clock)
    timeouts: dict[str, object] = {"connect_timeout_s": 0.3, "read_timeout_s": 0.3, "total_timeout_s": 0.6, **options}
    client = AretasClient(cloud.url, cloud.username, cloud.password, **timeouts)  # type: ignore[arg-type]
    uploader = AretasUploader(client, outbox, clock, jitter=lambda: 0.0)
    try:
        yield uploader, outbox
    finally:
        client.close()


def readings(count: int, sensor_type: int = 532, value: float = 52.0) -> list[Datum]:
    return [Datum(mac=MAC, type=sensor_type, data=value, timestamp_utc_ms=1000 * each) for each in range(1, count + 1)]


def test_readings_arrive_once_and_oldest_first() -> None:
    with VirtualCloud(macs=(MAC,)) as cloud, uploading(cloud) as (uploader, outbox):
        outbox.put(readings(1200))
        while outbox.lend(1):
            assert uploader.send_once() == 0.0
        assert [each.datum for each in cloud.received] == readings(1200)
        assert cloud.calls["ingest/std/batch"] == 3
        assert cloud.log_in_count == 1
        assert cloud.connection_count == 1
    assert outbox.tally() == Tally(made=1200, delivered=1200)


def test_an_expired_token_is_renewed_once() -> None:
    with VirtualCloud(macs=(MAC,)) as cloud, uploading(cloud) as (uploader, outbox):
        for number in range(3):
            outbox.put(readings(1))
            if number:
                cloud.expire_tokens()
            assert uploader.send_once() == 0.0
        assert cloud.log_in_count == 3
        assert len(cloud.received) == 3


@pytest.mark.parametrize("fault", [Reply(status=503), Reply(status=408), HTML_PAGE, never_answer, reset_mid_reply])
def test_a_failed_batch_is_kept_and_sent_again_after_a_growing_wait(fault: Fault) -> None:
    with VirtualCloud(macs=(MAC,)) as cloud, uploading(cloud) as (uploader, outbox):
        cloud.misbehave(fault, times=None)
        outbox.put(readings(2))
        assert [uploader.send_once() for _ in range(3)] == [1.0, 2.0, 4.0]
        assert outbox.tally().waiting == 2
        cloud.behave()
        assert uploader.send_once() == 0.0
        assert [each.datum for each in cloud.received] == readings(2)


def test_the_wait_never_grows_beyond_five_minutes() -> None:
    with VirtualCloud(macs=(MAC,)) as cloud, uploading(cloud) as (uploader, outbox):
        outbox.put(readings(1))
        cloud.stop()
        assert max(uploader.send_once() for _ in range(30)) == 300.0


def test_an_outage_is_told_once_and_so_is_its_end(caplog: pytest.LogCaptureFixture) -> None:
    with VirtualCloud(macs=(MAC,)) as cloud, uploading(cloud) as (uploader, outbox), caplog.at_level(logging.INFO):
        cloud.stop()
        outbox.put(readings(1))
        for _ in range(5):
            uploader.send_once()
        cloud.start()
        uploader.send_once()
    lines = [record.getMessage() for record in caplog.records if record.name == "aretas_reporter"]
    assert len(lines) == 2
    assert "kept and sent later" in lines[0]
    assert "accepted again" in lines[1]


def test_a_wrong_password_is_tried_once_in_five_minutes_and_loses_nothing(caplog: pytest.LogCaptureFixture) -> None:
    with VirtualCloud(macs=(MAC,), password="another-word") as cloud:
        cloud.password, right = "changed-meanwhile", cloud.password
        with uploading(cloud) as (uploader, outbox):
            uploader._client = AretasClient(cloud.url, cloud.username, right)
            outbox.put(readings(1))
            assert uploader.send_once() == 300.0
            assert cloud.log_in_count == 1
            assert outbox.tally().waiting == 1
    assert "API_PASSWORD" in caplog.text
    assert right not in caplog.text


def test_an_unregistered_device_keeps_everything_and_tells_what_to_check(caplog: pytest.LogCaptureFixture) -> None:
    with VirtualCloud(macs=(999,)) as cloud, uploading(cloud) as (uploader, outbox):
        outbox.put(readings(3))
        assert uploader.send_once() == 60.0
        assert outbox.tally().waiting == 3
        cloud.macs = frozenset({MAC})
        assert uploader.send_once() == 0.0
        assert len(cloud.received) == 3
    assert "self_mac" in caplog.text


def test_a_refused_reading_is_set_aside_and_takes_no_other_with_it(caplog: pytest.LogCaptureFixture) -> None:
    with VirtualCloud(macs=(MAC,)) as cloud, uploading(cloud) as (uploader, outbox):
        cloud.ranges[532] = (0.0, 62.0)
        bad = [Datum(mac=MAC, type=532, data=500.0, timestamp_utc_ms=at) for at in (3, 700)]
        outbox.put([*readings(5), bad[0], *readings(5), bad[1], *readings(5)])
        assert uploader.send_once() == 0.0
        delivered = {each.datum.data for each in cloud.received}
    assert delivered == {52.0}
    assert outbox.tally() == Tally(made=17, delivered=15, rejected=2)
    assert caplog.text.count("data exceeds allowed range!") == 2


def test_too_large_a_batch_is_halved_until_it_fits() -> None:
    with VirtualCloud(macs=(MAC,)) as cloud, uploading(cloud) as (uploader, outbox):
        cloud.largest_batch = 2
        outbox.put(readings(8))
        for _ in range(2):
            assert uploader.send_once() == 0.0
        assert cloud.received == []
        while outbox.lend(1):
            uploader.send_once()
        assert [each.datum for each in cloud.received] == readings(8)


def test_the_thread_delivers_at_once_and_stops_at_once_even_in_a_long_wait() -> None:
    clock = Clock()
    with VirtualCloud(macs=(MAC,)) as cloud, uploading(cloud) as (uploader, outbox):
        uploader.start(lambda: pytest.fail("it crashed"))
        outbox.put(readings(1))
        wait_for(lambda: cloud.received)
        cloud.stop()
        outbox.put(readings(2))
        wait_for(lambda: uploader._failures >= 2)
        started_mono_s = clock.mono_s()
        uploader.request_stop()
        assert uploader.join(clock.mono_s() + 5)
        assert clock.mono_s() - started_mono_s < 2.0


def test_the_last_send_happens_on_stop() -> None:
    with VirtualCloud(macs=(MAC,)) as cloud, uploading(cloud) as (uploader, outbox):
        cloud.stop()
        outbox.put(readings(1))
        uploader.start(lambda: pytest.fail("it crashed"))
        wait_for(lambda: uploader._failures >= 1)
        cloud.start()
        uploader.request_stop()
        assert uploader.join(Clock().mono_s() + 5)
        assert [each.datum for each in cloud.received] == readings(1)


def test_interval_contains_its_end_and_not_its_start() -> None:
    interval = Interval(start_mono_s=1.0, end_mono_s=2.0, end_utc_ms=0)
    assert 2.0 in interval
    assert 1.0 not in interval
