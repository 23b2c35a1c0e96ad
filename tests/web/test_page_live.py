"""The page over the running daemon, in a real browser: meters, sampling, database, server and page, nothing made up."""

from __future__ import annotations

import re
import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Error, HttpCredentials, Page, Response, expect

from tests.rig import Rig, start_daemon
from tests.web import browser as stage
from tests.web.browser import free_port, new_page, open_browser

pytestmark = stage.needs_browser
PAGE_WEIGHT_BYTES = 300_000
QUANTITIES = ("voltage_v", "current_a", "power_kw")


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with open_browser() as browser:
        yield browser


@contextmanager
def demo(folder: Path) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """Run ``--demo``; yield the process and the address of its page."""
    for _ in range(3):  # another demo may take the same port at the same moment
        process = start_daemon(folder, "--demo")
        try:
            assert process.stdout is not None
            served = next(
                line for line in process.stdout if "the page is served at" in line or "cannot be served" in line
            )
            address = re.search(r"served at (http://\S+)", served)
            if address is not None:
                yield process, address[1]
                return
        finally:
            process.kill()
            process.communicate()
    pytest.fail("the demo has not got a port three times")


@contextmanager
def one_error_is_a_failure(page: Page) -> Iterator[None]:
    """Fail the test if the browser's console says that something is wrong."""
    said: list[str] = []
    page.on("console", lambda message: said.append(message.text) if message.type in ("error", "warning") else None)
    yield
    assert said == []


def live(page: Page) -> None:
    expect(page.locator("#link .words")).to_have_text("live", timeout=15_000)


def in_the_last(page: Page, words: str) -> None:
    expect(page.locator("#summary")).to_contain_text(f"In the last {words}: Voltage: ", timeout=15_000)
    expect(page.locator("#chart-note")).to_contain_text("As of")


def test_the_demo_shows_values_that_change_and_its_history(browser: Browser, tmp_path: Path) -> None:
    """By mouse and by keyboard, in the light and in the dark; not one error in the console."""
    with demo(tmp_path) as (_, address), new_page(browser, size=stage.DESKTOP) as page, one_error_is_a_failure(page):
        responses: list[Response] = []
        page.on("response", lambda response: responses.append(response))
        page.goto(address)
        live(page)
        expect(page.locator("#parts li")).to_have_count(7)
        weights = {each.url: len(each.body()) for each in responses if "/api/" not in each.url}
        assert len(weights) > 8
        assert sum(weights.values()) <= PAGE_WEIGHT_BYTES, weights
        shown = page.locator("#voltage_v .number").inner_text()
        assert 40 < float(shown) < 60
        expect(page.locator("#voltage_v .number")).not_to_have_text(shown, timeout=15_000)
        expect(page.locator("#voltage_v .limit")).to_have_text(re.compile(r"^±\s0\.\d+\sV$"), timeout=15_000)
        expect(page.locator("#summary")).not_to_contain_text("no value", timeout=15_000)
        in_the_last(page, "hour")
        page.get_by_text("24 h", exact=True).click()
        in_the_last(page, "24 hours")
        page.keyboard.press("ArrowRight")
        in_the_last(page, "7 days")
        page.keyboard.press("ArrowRight")
        in_the_last(page, "31 days")
        background = page.locator("body").evaluate("e => getComputedStyle(e).backgroundColor")
        page.emulate_media(color_scheme="dark")
        assert page.locator("body").evaluate("e => getComputedStyle(e).backgroundColor") != background
        page.get_by_text("The same as a table").click()
        expect(page.locator("tbody tr")).not_to_have_count(0, timeout=15_000)
        live(page)


def test_a_killed_daemon_is_noticed(browser: Browser, tmp_path: Path) -> None:
    with demo(tmp_path) as (process, address), new_page(browser) as page:
        page.goto(address)
        live(page)
        process.send_signal(signal.SIGKILL)
        expect(page.locator("#notice strong")).to_have_text("The power monitor does not answer.", timeout=15_000)
        for each in QUANTITIES:
            expect(page.locator(f"#{each}.old .age")).to_contain_text("old:")


def test_an_unplugged_meter_is_noticed_and_so_is_its_return(browser: Browser, tmp_path: Path) -> None:
    port = free_port()
    with Rig(tmp_path) as rig, new_page(browser) as page:
        rig.configure({"WEB": {"enable_web": True, "web_port": port}})
        rig.start()
        rig.wait_for_log("the page is served at")
        page.goto(f"http://127.0.0.1:{port}/")
        live(page)
        expect(page.locator("#voltage_v .number")).to_have_text(re.compile(r"^52\.0"))
        expect(page.locator("#current_a .number")).to_have_text(re.compile(r"^\+1[45]\."))  # 10 mV / 0.6667 mΩ
        rig.current_port.stop()
        expect(page.locator("#notice strong")).to_have_text("Old values: current and power.", timeout=15_000)
        expect(page.locator("#current_a.old .age")).to_contain_text("old:")
        expect(page.locator("#voltage_v .age")).not_to_contain_text("old:")
        rig.current_port.start()
        expect(page.locator("#notice")).to_be_hidden(timeout=20_000)
        live(page)


def test_no_meter_at_all_is_no_value(browser: Browser, tmp_path: Path) -> None:
    port = free_port()
    with Rig(tmp_path, plugged_in=False) as rig, new_page(browser) as page:
        rig.configure({"WEB": {"enable_web": True, "web_port": port}})
        rig.start()
        rig.wait_for_log("the page is served at")
        page.goto(f"http://127.0.0.1:{port}/")
        expect(page.locator("#notice strong")).to_have_text("There is no value yet.", timeout=15_000)
        expect(page.locator("#overall .words")).to_have_text("No, something is wrong.", timeout=15_000)
        numbers = page.locator("#now .number, #today .number").all_inner_texts()
        assert numbers == ["no value"] * 5


def test_a_password_is_asked_for_by_the_browser(browser: Browser, tmp_path: Path) -> None:
    """With the password the page and what it asks for by itself are let in; without it not even the page."""
    port = free_port()
    with Rig(tmp_path) as rig:
        rig.configure({"WEB": {"enable_web": True, "web_port": port, "web_password": "a long password"}})
        rig.start()
        rig.wait_for_log("the page is served at")
        credentials = HttpCredentials(username="anybody", password="a long password")
        context = browser.new_context(http_credentials=credentials)
        page = context.new_page()
        page.goto(f"http://127.0.0.1:{port}/")
        live(page)
        context.close()
        with browser.new_context() as stranger, pytest.raises(Error, match="ERR_INVALID_AUTH_CREDENTIALS"):
            stranger.new_page().goto(f"http://127.0.0.1:{port}/")
