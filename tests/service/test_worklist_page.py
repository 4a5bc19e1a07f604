"""The worklist in a real browser: what a ward sees and does, by mouse, key, phone and printer."""

from __future__ import annotations

import shutil

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from tests.service import wards

playwright = pytest.importorskip("playwright.sync_api", reason="without the extra 'browser'")
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="no Chromium: apt-get install chromium")


@pytest.fixture(scope="module")
def browser():
    with playwright.sync_playwright() as driver:
        found = driver.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield found
        found.close()


@pytest.fixture
def ward(published, started, tmp_path):
    folder = tmp_path / "lists"
    wards.write(folder, {"M1": 0.2, "M2": 0.7}, day=-1, creatinine=1.5)
    wards.write(folder, {"M1": 0.6, "M2": 0.65, "M3": 0.1})
    return started(published, "--worklist", str(folder), "--token", "env:T", T="secret")


@pytest.fixture
def opened(browser, ward):
    """A page that says nothing on its console, signed in."""
    context = browser.new_context(locale="en-GB", timezone_id="UTC")
    page, said = context.new_page(), []
    page.on("pageerror", lambda error: said.append(str(error)))
    page.goto(f"{ward.url}/worklist")
    page.get_by_label("Access token").fill("wrong")
    page.keyboard.press("Enter")
    page.get_by_role("alert").filter(has_text="not the right one").wait_for()
    page.get_by_label("Access token").fill("secret")
    page.keyboard.press("Enter")
    page.locator(".row").first.wait_for()
    yield page
    assert said == []
    context.close()


def names(page):
    return page.locator(".row h2").all_inner_texts()


def test_a_ward_finds_understands_and_answers(opened):
    page = opened
    assert names(page) == ["M2", "M1", "M3"]
    first = page.locator(".row").nth(1)
    assert "60%" in first.inner_text() and "↑ 40 points" in first.inner_text()
    assert "now above the threshold" in first.inner_text()
    assert "New on the list" in page.locator(".row").nth(2).inner_text()
    assert "2 of 3" in choose(page, "Show", "above") and names(page) == ["M2", "M1"]
    assert "2 of 3" in choose(page, "Show", "changed") and names(page) == ["M1", "M3"]
    choose(page, "Show", "all")
    choose(page, "Order", "rise")
    assert names(page)[0] == "M1"
    page.get_by_label("Find").fill("m3")
    assert names(page) == ["M3"]
    page.get_by_label("Find").fill("")
    page.get_by_text("History and reasons").first.click()
    assert page.locator(".more svg").first.get_attribute("aria-label").startswith("Risk from 20%")
    assert "2.0 mg/dL (before: 1.5 mg/dL)" in page.locator(".more").first.inner_text()
    page.get_by_role("button", name="Acknowledge M1").click()
    page.get_by_text("✓ Acknowledged").wait_for()
    page.get_by_role("button", name="Not useful … M2").press("Enter")
    page.get_by_label("Why is it not useful?").select_option("disagree")
    page.get_by_role("button", name="Send").press("Enter")
    page.get_by_text("Not useful: I judge the risk otherwise").wait_for()
    assert "1 of 3" in choose(page, "Show", "open") and names(page) == ["M3"]
    page.reload()
    page.locator(".row").first.wait_for()
    assert page.get_by_text("✓ Acknowledged").count() == 1  # it is kept, not only shown


def choose(page, label, value):
    page.get_by_label(label, exact=True).select_option(value)
    return page.get_by_role("status").inner_text()


def test_it_fits_a_phone_works_by_keyboard_and_prints(opened):
    page = opened
    page.set_viewport_size({"width": 360, "height": 740})
    page.get_by_text("History and reasons").first.press("Enter")
    page.locator(".more svg").first.wait_for()
    assert page.evaluate("document.documentElement.scrollWidth") <= 360
    small = "[...document.querySelectorAll('button')].filter(b => b.offsetParent)"
    assert page.evaluate(f"{small}.every(b => b.offsetHeight >= 44)")  # a finger's width
    unnamed = "[...document.querySelectorAll('svg, input, select')].filter(e => e.tagName === 'svg'"
    unnamed += " ? !e.getAttribute('aria-label') : !e.labels.length)"
    assert page.evaluate(f"{unnamed}.length") == 0
    page.emulate_media(media="print")
    assert not page.locator("#filters").is_visible() and page.locator(".row h2").count() == 3
    assert not page.get_by_role("button", name="Acknowledge M1").is_visible()


def test_what_a_list_says_is_never_markup(published, started, tmp_path, browser):
    folder = tmp_path / "hostile"
    file = wards.write(folder, {"M1": 0.6})
    hostile(file, "<img src=x onerror=document.title='taken'>")
    page = browser.new_page()
    page.goto(f"{started(published, '--worklist', str(folder)).url}/worklist")
    page.locator(".row").first.wait_for()
    assert "<img" in page.locator(".row h2").inner_text() and page.locator(".row img").count() == 0
    page.close()


def hostile(file, text):
    table = pq.read_table(file)
    at = table.column_names.index("patient")
    pq.write_table(table.set_column(at, "patient", pa.array([text])), file)
