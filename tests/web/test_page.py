"""The page in a real browser: what a person beside the battery sees, and what it must not make them believe."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from functools import partial

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Browser, Page, expect

from tests.web import browser as stage
from tests.web.browser import DESKTOP, PHONE, FakeMonitor, new_page, open_browser

pytestmark = stage.needs_browser
QUANTITIES = ("voltage_v", "current_a", "power_kw")


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with open_browser() as browser:
        yield browser


@pytest.fixture
def monitor() -> Iterator[FakeMonitor]:
    with FakeMonitor() as monitor:
        yield monitor


@pytest.fixture
def page(browser: Browser) -> Iterator[Page]:
    with new_page(browser) as page:
        yield page


def number(page: Page, quantity: str) -> str:
    return page.locator(f"#{quantity} .number").inner_text()


def live(page: Page) -> None:
    expect(page.locator("#link .words")).to_have_text("live")


def let_answers_come(page: Page, count: int) -> None:
    """Let seconds go by on the installed clock, in each of which an answer comes."""
    for _ in range(count):
        with page.expect_response("**/api/latest"):
            page.clock.run_for(1000)


def until_live(page: Page) -> None:
    """Let time go by on the installed clock until an answer has come: the page may be in a pause of 10 s."""
    for _ in range(60):
        page.clock.run_for(500)
        page.wait_for_timeout(25)
        if page.locator("#link .words").inner_text() == "live":
            return
    live(page)


def violations(page: Page) -> list[str]:
    found = Axe().run(page).response["violations"]
    return [f"{each['id']}: {each['help']} {[node['target'] for node in each['nodes']]}" for each in found]


# -- the numbers -------------------------------------------------------------------------------------------------------


def test_the_last_digit_shown_is_one_that_means_something(monitor: FakeMonitor, page: Page) -> None:
    cases: list[tuple[float | None, float | None, str]] = [
        (52.3141, 0.031, "52.31 ± 0.04 V"),
        (52.3141, 0.02, "52.31 ± 0.02 V"),
        (52.3141, 0.0199, "52.314 ± 0.020 V"),  # a leading 1 has one digit more
        (52.3141, 0.01, "52.314 ± 0.010 V"),
        (52.3141, 0.1, "52.31 ± 0.10 V"),
        (52.3141, 0.0999, "52.31 ± 0.10 V"),
        (52.3141, 3.2, "52 ± 4 V"),
        (52.3141, 40, "52 ± 40 V"),
        (52.3141, None, "52.31 ± not known"),
        (52.3141, 0, "52.31 ± 0.00 V"),
        (-52.3141, 0.031, "−52.31 ± 0.04 V"),
        (-0.001, 0.031, "0.00 ± 0.04 V"),
        (None, 0.031, "no value ± 0.04 V"),
    ]
    page.goto(monitor.url)
    script = """async (cases) => {
        const { decimalsFor, numberText, limitText } = await import("/static/format.js");
        return cases.map(([value, limit]) => {
            const decimals = decimalsFor(limit, 2);
            return `${numberText(value, decimals)} ${limitText(limit, decimals, "V")}`.replaceAll("\\u00a0", " ");
        });
    }"""
    assert page.evaluate(script, cases) == [shown for _, _, shown in cases]


def test_what_is_measured_is_shown_with_sign_unit_uncertainty_and_age(monitor: FakeMonitor, page: Page) -> None:
    page.goto(monitor.url)
    live(page)
    assert [number(page, each) for each in QUANTITIES] == ["52.31", "−14.21", "−0.743"]
    expect(page.locator("#voltage_v")).to_contain_text("V ± 0.04 V just now")
    expect(page.locator("#direction")).to_have_text("▼Discharging")
    expect(page.locator("#energy_in")).to_contain_text("8.23 kWh ± 0.04 kWh155.2 Ah")
    expect(page.locator("#coverage")).to_have_text(
        "Measured during 98.7 % of the time since 00:00; 10 min are missing."
    )
    parts = [" ".join(text.split()) for text in page.locator("#parts li").all_inner_texts()]
    assert parts[1] == "! Cloud look at this Last delivery 5 min ago."
    assert page.locator("#notice").is_hidden()


def test_no_data_is_no_value_and_never_0(monitor: FakeMonitor, page: Page) -> None:
    monitor.answers["api/latest"] = stage.nothing
    page.goto(monitor.url)
    expect(page.locator("#notice")).to_contain_text("There is no value yet.")
    places = (*QUANTITIES, "energy_in", "energy_out")
    assert {number(page, each) for each in places} == {"no value"}
    assert [page.locator(f"#{each} .unit").is_visible() for each in places] == [False] * 5
    expect(page.locator("#direction .words")).to_have_text("Direction not known")
    assert page.locator("#coverage").inner_text() == ""


# -- old values --------------------------------------------------------------------------------------------------------


def test_a_quantity_without_a_new_value_grows_old_and_the_others_stay(monitor: FakeMonitor, page: Page) -> None:
    page.clock.install()
    page.goto(monitor.url)
    live(page)
    monitor.answers["api/latest"] = stage.without("current_a", "power_kw")
    let_answers_come(page, 8)
    expect(page.locator("#notice strong")).to_have_text("Old values: current and power.")
    expect(page.locator("#current_a.old .age")).to_contain_text("old:")
    assert "gradient" in page.locator("#current_a .number").evaluate("e => getComputedStyle(e).backgroundImage")
    assert page.locator("#voltage_v").get_attribute("class") == "value"
    expect(page.locator("#direction")).to_have_class("unknown")
    monitor.answers["api/latest"] = stage.latest
    page.clock.run_for(2000)
    live(page)
    assert page.locator("#notice").is_hidden()


def test_a_monitor_that_is_silent_is_noticed_by_the_page_itself(monitor: FakeMonitor, page: Page) -> None:
    page.clock.install()
    page.goto(monitor.url)
    live(page)
    expect(page.locator("#parts li")).to_have_count(4)
    under_way: list[int] = [0]
    page.on("request", lambda request: under_way.append(under_way[-1] + request.url.endswith("latest")))
    for event in ("requestfinished", "requestfailed"):
        page.on(event, lambda request: under_way.append(under_way[-1] - request.url.endswith("latest")))
    monitor.hanging = True
    page.clock.run_for(190_000)
    expect(page.locator("#notice strong")).to_have_text("The power monitor does not answer.")
    expect(page.locator("#announcement")).to_have_text("The power monitor does not answer.")
    for each in QUANTITIES:
        expect(page.locator(f"#{each}.old .age")).to_have_text("old: 3 min")
    expect(page.locator("#overall .words")).to_have_text("Not known: it does not answer.")
    expect(page.locator("#link .words")).to_have_text("no answer")
    expect(page.locator("#today")).to_have_class("old")
    assert len(under_way) > 10
    assert max(under_way) == 1  # each was given up before the next
    monitor.hanging = False
    until_live(page)
    expect(page.locator("#overall .words")).to_have_text("Almost: look at this.")


def test_a_device_that_slept_does_not_show_an_old_number_as_new(monitor: FakeMonitor, page: Page) -> None:
    """Its steady clock may stand still in sleep: here only the wall clock goes on."""
    page.clock.install()
    page.goto(monitor.url)
    live(page)
    monitor.hanging = True
    page.evaluate("performance.now = () => 0")
    page.clock.set_system_time(stage.now_ms() / 1000 + 7260)
    page.clock.run_for(1000)
    expect(page.locator("#voltage_v.old .age")).to_have_text("old: 2 h")


def test_an_error_of_the_monitor_is_told_as_text(monitor: FakeMonitor, page: Page) -> None:
    page.clock.install()
    page.goto(monitor.url)
    live(page)
    monitor.status = 503
    let_answers_come(page, 1)
    page.clock.run_for(6000)
    expect(page.locator("#notice strong")).to_have_text("The power monitor reports an error.")
    expect(page.locator("#notice span")).to_contain_text("the database is <b>locked</b>")


def test_the_history_that_cannot_be_read_is_told_and_the_rest_goes_on(monitor: FakeMonitor, page: Page) -> None:
    page.goto(monitor.url)
    expect(page.locator("#chart-note")).to_contain_text("As of")
    monitor.status = 503
    page.get_by_text("24 h", exact=True).click()
    expect(page.locator("#chart-note")).to_contain_text("could not be read: the database is <b>locked</b>")
    expect(page.locator("#charts")).to_have_class("old")
    monitor.status = 200
    live(page)


def test_a_hidden_tab_asks_nothing_and_shows_its_age_when_it_is_seen_again(monitor: FakeMonitor, page: Page) -> None:
    page.clock.install()
    page.goto(monitor.url)
    live(page)
    set_hidden = """hidden => {
        Object.defineProperty(document, "hidden", { value: hidden, configurable: true });
        document.dispatchEvent(new Event("visibilitychange"));
    }"""
    page.evaluate(set_hidden, True)
    page.wait_for_timeout(100)
    asked = len(monitor.asked)
    page.clock.run_for(120_000)
    page.wait_for_timeout(100)
    assert len(monitor.asked) == asked
    monitor.hanging = True
    page.evaluate(set_hidden, False)
    expect(page.locator("#voltage_v.old .age")).to_have_text("old: 2 min")
    monitor.hanging = False
    until_live(page)


def test_a_screen_reader_is_not_told_something_every_second(monitor: FakeMonitor, page: Page) -> None:
    page.clock.install()
    page.goto(monitor.url)
    live(page)
    page.evaluate(
        """() => {
            window.told = 0;
            const count = (changes) => { window.told += changes.length; };
            for (const place of document.querySelectorAll("[aria-live], [role=status], [role=alert]")) {
                new MutationObserver(count).observe(place, { childList: true, characterData: true, subtree: true });
            }
        }"""
    )
    let_answers_come(page, 12)
    assert page.evaluate("window.told") == 0
    assert page.locator("#announcement").inner_text() == "Discharging"


# -- the chart ---------------------------------------------------------------------------------------------------------


def charted(page: Page) -> None:
    expect(page.locator("canvas")).to_have_count(3)
    expect(page.locator("#charts")).to_have_attribute("aria-busy", "false")


def test_a_gap_is_not_bridged(monitor: FakeMonitor, page: Page) -> None:
    """Half an hour is missing in the middle of the hour: between the two parts there is no dot of the line's colour."""
    monitor.answers["api/history"] = partial(stage.history, missing=range(15, 45))
    page.goto(monitor.url)
    charted(page)
    script = """() => {
        const canvas = document.querySelector("figure[data-quantity=voltage_v] canvas");
        const over = document.querySelector("figure[data-quantity=voltage_v] .u-over");
        const ratio = canvas.width / canvas.clientWidth;
        const blue = (from, to) => {
            const left = Math.round((over.offsetLeft + over.clientWidth * from) * ratio);
            const width = Math.round(over.clientWidth * (to - from) * ratio);
            const height = Math.round(over.clientHeight * ratio);
            const { data } = canvas.getContext("2d").getImageData(left, 0, width, height);
            let found = 0;
            for (let i = 0; i < data.length; i += 4) found += data[i + 3] > 0 && data[i + 2] - data[i] > 60;
            return found;
        };
        return [blue(0.02, 0.2), blue(0.27, 0.73), blue(0.8, 0.98)];
    }"""
    before, gap, after = page.evaluate(script)
    assert (before > 100, gap, after > 100) == (True, 0, True)
    expect(page.locator("#summary")).to_contain_text(re.compile(r"Without values: (29|30)\smin\."))


def test_ranges_by_mouse_and_by_keyboard(monitor: FakeMonitor, page: Page) -> None:
    page.goto(monitor.url)
    charted(page)
    expect(page.locator("#summary")).to_contain_text("In the last hour: Voltage: 50.80 to 53.10 V.")
    page.get_by_text("7 d", exact=True).click()
    expect(page.locator("#summary")).to_contain_text("In the last 7 days")
    page.keyboard.press("ArrowRight")
    expect(page.locator("#summary")).to_contain_text("In the last 31 days")
    assert page.locator("input[value='31d']").is_checked()
    outline = page.locator("input[value='31d'] + span").evaluate("e => getComputedStyle(e).outlineStyle")
    assert outline == "solid"


def test_the_slider_reads_values_by_keyboard_and_so_does_the_mouse(monitor: FakeMonitor, page: Page) -> None:
    page.goto(monitor.url)
    charted(page)
    expect(page.locator("#moment")).to_contain_text("Newest: until")
    newest = page.locator("figcaption strong").all_inner_texts()
    assert [len(text.split()[0].partition(".")[2]) for text in newest] == [1, 0, 1]  # ± 0.4 V, 4 A, 0.2 kW
    page.locator("#cursor").focus()
    page.keyboard.press("ArrowLeft")
    expect(page.locator("#moment")).to_have_text(re.compile("^Until "))
    assert page.locator("figcaption strong").all_inner_texts() != newest
    assert "Voltage " in (page.locator("#cursor").get_attribute("aria-valuetext") or "")
    page.locator(".u-over").first.hover(position={"x": 40, "y": 40})
    by_slider = page.locator("#moment").inner_text()
    page.locator(".u-over").first.hover(position={"x": 200, "y": 40})
    expect(page.locator("#moment")).not_to_have_text(by_slider)


def test_the_table_has_what_the_chart_has(monitor: FakeMonitor, page: Page) -> None:
    page.goto(monitor.url)
    charted(page)
    page.get_by_text("The same as a table").click()
    rows = page.locator("tbody tr")
    expect(rows).to_have_count(12)
    cells = rows.first.locator("td").all_inner_texts()
    assert (len(cells), cells[3:]) == (5, ["0.250", "no value"])


@pytest.mark.parametrize(("zone", "shown"), [("Europe/Vienna", "13:30"), ("Asia/Kolkata", "18:00")])
def test_times_are_local(browser: Browser, monitor: FakeMonitor, zone: str, shown: str) -> None:
    with new_page(browser, zone=zone) as page:
        page.goto(monitor.url)
        script = 'async () => (await import("/static/format.js")).timeText(Date.UTC(2026, 0, 5, 12, 30), "time")'
        assert page.evaluate(script) == shown


def test_a_point_stands_for_whole_intervals(monitor: FakeMonitor, page: Page) -> None:
    """Span, width in pixels, report interval, and the step that follows."""
    hour, day = stage.HOUR_MS, 24 * stage.HOUR_MS
    cases = [
        (hour, 300, 30_000, 30_000),
        (hour, 300, 2000, 30_000),
        (hour, 900, 2000, 10_000),
        (day, 300, 30_000, 600_000),
        (31 * day, 900, 7000, 5_957_000),  # fits no round step
        (hour, 300, 600_000, 600_000),
    ]
    page.goto(monitor.url)
    script = """async (cases) => {
        const { chooseStepMs } = await import("/static/history.js");
        return cases.map((case_) => chooseStepMs(...case_.slice(0, 3)));
    }"""
    assert page.evaluate(script, cases) == [step_ms for *_, step_ms in cases]


# -- for everybody -----------------------------------------------------------------------------------------------------


def silence(monitor: FakeMonitor, page: Page) -> None:
    monitor.hanging = True
    page.clock.run_for(60_000)
    expect(page.locator("#link .words")).to_have_text("no answer")


@pytest.mark.parametrize("then", [None, silence], ids=["all well", "silent"])
@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
@pytest.mark.parametrize("size", [PHONE, DESKTOP], ids=["phone", "desktop"])
def test_names_roles_and_contrast(
    browser: Browser,
    monitor: FakeMonitor,
    size: tuple[int, int],
    dark: bool,
    then: Callable[[FakeMonitor, Page], None] | None,
) -> None:
    """Looked at by axe; contrast, too, which is different in the dark and when values are old."""
    with new_page(browser, size=size, dark=dark) as page:
        page.clock.install()
        page.goto(monitor.url)
        live(page)
        charted(page)
        page.get_by_text("The same as a table").click()
        expect(page.locator("tbody tr")).to_have_count(12)
        if then is not None:
            then(monitor, page)
        assert violations(page) == []


@pytest.mark.parametrize("width", [320, 360, 768, 1280])
def test_nothing_is_cut_off_or_scrolls_sideways(browser: Browser, monitor: FakeMonitor, width: int) -> None:
    """320 is also what a screen of 1280 has at a zoom of 400 %. Number and unit stay together."""
    body = stage.latest({})
    body["sample"].update(voltage_v=1000.123, current_a=-1250.123, power_kw=-1250.123)
    body["uncertainty"] = dict.fromkeys(QUANTITIES, 0.03)
    monitor.answers["api/latest"] = lambda _query: body
    with new_page(browser, size=(width, 800)) as page:
        page.goto(monitor.url)
        live(page)
        charted(page)
        assert page.evaluate("document.documentElement.scrollWidth") <= width
        for each in QUANTITIES:
            box = page.locator(f"#{each} .number").bounding_box()
            unit = page.locator(f"#{each} .unit").bounding_box()
            assert box is not None
            assert unit is not None
            assert unit["x"] + unit["width"] <= width
            assert box["y"] <= unit["y"] <= box["y"] + box["height"]


def test_nothing_moves_for_those_who_do_not_want_it(browser: Browser, monitor: FakeMonitor, page: Page) -> None:
    page.emulate_media(reduced_motion="reduce")
    page.goto(monitor.url)
    assert page.locator(".plot").first.evaluate("e => getComputedStyle(e).transitionDuration") == "0s"
    page.emulate_media(reduced_motion="no-preference")
    assert page.locator(".plot").first.evaluate("e => getComputedStyle(e).transitionDuration") == "0.2s"
