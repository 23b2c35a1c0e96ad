"""How heavy the page is and how soon it shows something, in a real browser over the running daemon; and its pictures.

    python3 -m benchmarks.page [--runs 9] [--pictures docs/pictures]

The daemon has a day of history, made with the battery model of the simulator and stored by the daemon's own modules,
with a pause of half an hour in it. The first value is the moment at which a person can read volts; the history is there
when the three charts are drawn. Needs Chromium (tests/web/get_browser.sh).
"""

from __future__ import annotations

import argparse
import statistics
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from io import BytesIO
from pathlib import Path

from PIL import Image
from playwright.sync_api import Browser, Page, expect

from accuracy import accuracy_of
from averaging_buffer import summarise
from benchmarks.stand import Figure, print_table, say
from clock import Clock
from energy import EnergyMeter
from measurements import Interval, PowerSample
from outbox import Limits, Outbox
from settings import load_settings
from simulator.battery import Battery, BatteryModel
from store import NAME as DATABASE_NAME
from store import Store
from tests.rig import SHUNT_OHM, Rig
from tests.web.browser import DESKTOP, PHONE, free_port, new_page, open_browser

_DAY_S, _REPORT_S, _SAMPLE_S = 86_400, 30, 5
_PAUSE_S = range(50_000, 51_800)  # of the day
_NOW_IN_CYCLE_S = 15 * 3600.0  # the battery has been discharged for two hours
_WEIGHT_BYTES, _FIRST_PAINT_MS = 300_000, 1000.0
_WATCH = """
    const seen = (name, there) => { if (there && !window[name]) window[name] = performance.now(); };
    new MutationObserver(() => {
        const number = document.querySelector("#voltage_v .number");
        seen("firstValue", number && number.textContent !== "no value");
        seen("firstChart", document.querySelectorAll("canvas").length === 3);
    }).observe(document, { childList: true, subtree: true, characterData: true });
"""


def write_day(folder: Path, battery: Battery, at_s: Callable[[float], float], now_utc_s: float) -> None:
    """Store the intervals of the last 24 hours as delivered. ``at_s``: wall clock -> time of the battery."""
    settings, clock = load_settings(folder / "config.cfg"), Clock()
    accuracy, meter = accuracy_of(settings), EnergyMeter(_SAMPLE_S)
    outbox = Outbox(Store(folder / DATABASE_NAME, clock), settings.api.device(1), "an earlier boot", clock, Limits())
    outbox.recover()
    end_utc_s = int(now_utc_s) // _REPORT_S * _REPORT_S
    begin_utc_s = end_utc_s - _DAY_S
    for utc_s in range(begin_utc_s, end_utc_s, _REPORT_S):
        if utc_s - begin_utc_s in _PAUSE_S:
            continue
        samples = [
            sample_of(battery, each - begin_utc_s, at_s(each))
            for each in range(utc_s + _SAMPLE_S, utc_s + _REPORT_S + 1, _SAMPLE_S)
        ]
        summary = summarise(samples, meter)
        summary = replace(summary, uncertainty=accuracy.of(summary))
        ended, following = (interval_from(each, begin_utc_s) for each in (utc_s, utc_s + _REPORT_S))
        outbox.close_interval(summary, ended, following, clock_trusted=True)
    while lent := outbox.lend(900):
        outbox.settle_delivered(lent)
    outbox.close()


def sample_of(battery: Battery, mono_s: float, at_s: float) -> PowerSample:
    """Return what both meters show at a time of the battery."""
    voltage_v, current_a = battery.voltage_v(at_s), battery.current_a(at_s)
    power_kw = voltage_v * current_a / 1000
    return PowerSample(start_mono_s=mono_s, voltage_v=voltage_v, current_a=current_a, power_kw=power_kw)


def interval_from(utc_s: int, zero_utc_s: int) -> Interval:
    """Return the interval that begins at this moment, on a monotonic clock that was 0 at ``zero_utc_s``."""
    end_utc_s = utc_s + _REPORT_S
    return Interval(start_mono_s=utc_s - zero_utc_s, end_mono_s=end_utc_s - zero_utc_s, end_utc_ms=end_utc_s * 1000)


@contextmanager
def daemon_with_a_day(folder: Path) -> Iterator[str]:
    """Run the daemon on a battery whose last day it has stored; yield the address of its page."""
    clock = Clock()
    battery = BatteryModel(cycle_s=_DAY_S, shunt_ohm=SHUNT_OHM)
    now_utc_s, now_mono_s = clock.utc_s(), clock.mono_s()

    def live_s(mono_s: float) -> float:
        return mono_s - now_mono_s + _DAY_S + _NOW_IN_CYCLE_S

    with Rig(
        folder,
        volts=lambda mono_s: battery.voltage_v(live_s(mono_s)),
        shunt_volts=lambda mono_s: battery.shunt_v(live_s(mono_s)),
    ) as rig:
        port = free_port()
        rig.configure({"WEB": {"enable_web": True, "web_port": port}}, sample_ms=1000, report_ms=_REPORT_S * 1000)
        write_day(folder, battery, lambda utc_s: live_s(utc_s - now_utc_s + now_mono_s), now_utc_s)
        rig.start()
        rig.wait_for_log("the page is served at")
        yield f"http://127.0.0.1:{port}/"


def wait_for_all(page: Page) -> None:
    """Wait until everything on the page has a value; the first interval has to end for that."""
    expect(page.locator("#overall")).to_have_class("ok", timeout=60_000)
    expect(page.locator("#parts li").nth(1)).to_contain_text("Last delivery", timeout=60_000)
    expect(page.locator("canvas")).to_have_count(3)
    expect(page.locator("#charts")).to_have_attribute("aria-busy", "false")
    expect(page.locator("#link .words")).to_have_text("live")


def take_pictures(browser: Browser, address: str, folder: Path) -> None:
    """Write pictures of the page: two screens of a phone, in the dark, side by side; and that of a desktop."""
    folder.mkdir(parents=True, exist_ok=True)
    with page_with_everything(browser, address, size=DESKTOP) as page:
        write_picture(folder / "page-desktop.png", Image.open(BytesIO(page.screenshot(full_page=True))))
    with page_with_everything(browser, address, size=PHONE, dark=True, scale=1.5) as page:
        whole = Image.open(BytesIO(page.screenshot(full_page=True)))
        cut = round((page.locator("#history").evaluate("e => e.offsetTop") - 6) * 1.5)
    lower = whole.crop((0, cut, whole.width, whole.height))
    both = Image.new("RGB", (2 * whole.width + 30, max(cut, lower.height)), "white")
    both.paste(whole.crop((0, 0, whole.width, cut)), (0, 0))
    both.paste(lower, (whole.width + 30, 0))
    write_picture(folder / "page-phone.png", both)


@contextmanager
def page_with_everything(
    browser: Browser, address: str, *, size: tuple[int, int], dark: bool = False, scale: float = 1
) -> Iterator[Page]:
    """Open the page, with the last 24 hours in its charts."""
    with new_page(browser, size=size, dark=dark, zone=None, scale=scale) as page:
        page.goto(address)
        page.get_by_text("24 h", exact=True).click()
        expect(page.locator("#summary")).to_contain_text("In the last 24 hours")
        wait_for_all(page)
        page.mouse.move(0, 0)
        yield page


def write_picture(path: Path, picture: Image.Image) -> None:
    """Write a PNG of few colours, which is small."""
    picture.convert("RGB").quantize(128, method=Image.Quantize.MAXCOVERAGE, dither=Image.Dither.NONE).save(
        path, optimize=True
    )
    say(f"{path}: {path.stat().st_size / 1000:.0f} kB")


def measure(browser: Browser, address: str) -> dict[str, float]:
    """Open the page with nothing remembered; return its weight in bytes and the times in ms."""
    with new_page(browser) as page:
        page.add_init_script(_WATCH)
        page.goto(address)
        expect(page.locator("canvas")).to_have_count(3)
        expect(page.locator("#link .words")).to_have_text("live", timeout=30_000)
        script = """() => ({
            weight: performance.getEntries().reduce((sum, each) => sum + (each.transferSize ?? 0), 0),
            paint: performance.getEntriesByName("first-contentful-paint")[0].startTime,
            value: window.firstValue,
            chart: window.firstChart,
        })"""
        result: dict[str, float] = page.evaluate(script)
        return result


def main() -> int:
    """Measure and print. Return the exit code."""
    parser = argparse.ArgumentParser(prog="python3 -m benchmarks.page", description="The page in a real browser.")
    parser.add_argument("--runs", type=int, default=9, help="how often it is opened (9)")
    parser.add_argument("--pictures", type=Path, metavar="FOLDER", help="write pictures of it instead")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder, daemon_with_a_day(Path(folder)) as address, open_browser() as browser:
        if options.pictures:
            take_pictures(browser, address, options.pictures)
            return 0
        measure(browser, address)  # the daemon may have just begun to sample
        runs = [measure(browser, address) for _ in range(options.runs)]
    median = {name: statistics.median(run[name] for run in runs) for name in runs[0]}
    slowest = max(run["value"] for run in runs)
    figures = [
        Figure(
            what="weight, all that is loaded", value=median["weight"] / 1000, unit="kB", at_most=_WEIGHT_BYTES / 1000
        ),
        Figure(what="first paint", value=median["paint"], unit="ms", digits=0, at_most=_FIRST_PAINT_MS),
        Figure(what="first value to read", value=median["value"], unit="ms", digits=0, at_most=_FIRST_PAINT_MS),
        Figure(what="first value to read, slowest", value=slowest, unit="ms", digits=0),
        Figure(what="charts of the last hour", value=median["chart"], unit="ms", digits=0),
    ]
    return print_table(f"The page, opened {options.runs} times, medians", figures)


if __name__ == "__main__":
    sys.exit(main())
