"""The page as a whole: nothing hostile runs, everybody can read it, and it stays small."""

from __future__ import annotations

import functools
import http.server
import re
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from libraries import Library
from watched import until

from batch.attempt import TimedOut
from batch.output.layout import Layout
from batch.output.sqlite import Database
from batch.output.state import BeginRun, EndRun, Put
from batch.report.posters import Mode
from batch.report.write import write_report
from batch.run.presence import Presence

STATES: dict[str, tuple[str, dict[str, Any], tuple[str, ...]]] = {
    "top": ("", {}, ()),
    "filtered": ("#show=needs", {}, ()),
    "nothing found": ("#q=zebra", {}, ()),
    "job": ("#open=teacup", {}, ()),
    "pair": ("#open=fox", {}, ("[data-mode=wipe]",)),
    "dark": ("", {"color_scheme": "dark"}, ()),
}
LEVELS = ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa"]


# -- nothing hostile


def test_hostile_words_are_text(opened: Any) -> None:
    page = opened()
    page.wait_for_timeout(200)
    assert "pwned" not in page.title()
    assert page.locator("img[src=x]").count() == 0
    page.locator(".card:has-text('odd #1') .poster").click()
    until(lambda: page.evaluate("document.querySelector('#frames video').readyState >= 2"), "plays")
    assert page.locator("#info .text").inner_text().startswith("</script><img")


def test_injected_script_and_handler_are_dead(browser: Any, report: Path) -> None:
    context = browser.new_context()
    page = context.new_page()
    page.goto(report.as_uri())
    page.evaluate(
        """() => {
            const script = document.createElement("script");
            script.textContent = "document.title = 'pwned'";
            const image = document.createElement("img");
            image.setAttribute("onerror", "document.title = 'pwned'");
            image.src = "https://example.invalid/x";
            document.body.append(script, image);
        }"""
    )
    page.wait_for_timeout(200)
    assert "pwned" not in page.title()
    context.close()


def test_page_asks_only_for_what_is_in_its_folder(opened: Any, report: Path) -> None:
    page = opened()
    page.locator("#cards").scroll_into_view_if_needed()
    page.locator(".card:has-text('city/night') .poster").click()
    page.wait_for_timeout(200)
    files = [url for url in page.requested if url.startswith("file:")]
    assert files
    assert all(url.startswith(report.parent.as_uri() + "/") for url in files), files


def test_file_holds_no_secret_and_no_path(report: Path) -> None:
    content = report.read_text("utf-8")
    for secret in ("verysecret", "127.0.0.1", "ksSecret", "cacheKey", str(report.parent.parent)):
        assert secret not in content
    assert not re.search(r"https?://(?!www\.w3\.org/2000/svg)", content)


# -- for everyone


@pytest.mark.parametrize("state", STATES)
def test_axe_finds_no_violation(browser: Any, report: Path, state: str) -> None:
    axe = pytest.importorskip("axe_playwright_python.sync_playwright").Axe()
    hash_, options, clicks = STATES[state]
    # axe evaluates texts, which the policy forbids.
    context = browser.new_context(bypass_csp=True, reduced_motion="reduce", **options)
    page = context.new_page()
    page.goto(report.as_uri() + hash_)
    for selector in clicks:
        page.click(selector)
    page.wait_for_timeout(100)
    found = axe.run(page, options={"runOnly": LEVELS})
    told = found.generate_report() if found.violations_count else ""
    context.close()
    assert not told, told


def test_narrow_screen_never_scrolls_sideways(opened: Any) -> None:
    page = opened(viewport={"width": 390, "height": 844}, has_touch=True)
    for hash_ in ("", "#open=fox"):
        page.goto(page.url.partition("#")[0] + hash_)
        assert page.evaluate("document.documentElement.scrollWidth") == 390
    box = page.locator("#box").bounding_box()
    assert (box["x"], box["width"]) == (0, 390)


def test_switch_of_the_scheme_lives_in_the_address(opened: Any) -> None:
    ground = "getComputedStyle(document.body).backgroundColor"
    page = opened()
    light = page.evaluate(ground)
    page.click("#theme")
    dark = page.evaluate(ground)
    assert light != dark
    assert opened(hash_="#theme=dark").evaluate(ground) == dark


def test_pointer_on_a_time_tells_the_local_one(opened: Any) -> None:
    page = opened(timezone_id="Asia/Tokyo")
    shown = page.locator("time[data-at]").first
    assert shown.get_attribute("title") is None
    shown.hover()
    assert "GMT+9" in shown.get_attribute("title")


def test_refusals_are_marked_and_told(opened: Any, tmp_path: Path) -> None:
    """In the picture with a title, and in the table for those who do not see it."""
    root = Library(tmp_path / "night", 8, is_bare=True).write()
    page = opened(write_report(root, Presence, mode=Mode.NONE).path)
    until(lambda: page.locator("svg .refused").count() == 2, "the marks are drawn")
    title = page.locator("svg .refused title").first.text_content()
    assert title.endswith(": 3 requests refused for now (1303)")
    assert page.locator(".legend .x").is_visible()
    page.click("#night-table summary")
    until(lambda: page.locator("#night-rows").inner_text().count("refused for now") == 2, "rows")


def test_card_without_a_video_says_why(opened: Any) -> None:
    page = opened()
    assert "risk control" in page.locator(".card:has-text('refused') .no").first.inner_text()


def test_print_leaves_the_tools_out(opened: Any) -> None:
    page = opened()
    page.emulate_media(media="print")
    assert not page.locator(".tools").is_visible()
    assert not page.locator(".night").is_visible()
    columns = page.evaluate(
        "getComputedStyle(document.getElementById('cards')).gridTemplateColumns"
    )
    assert len(columns.split()) == 4


def test_print_of_a_dark_page_is_light(opened: Any) -> None:
    """The paper is white, whatever the switch says; and nothing is larger than its heading."""
    page = opened(hash_="#theme=dark")
    page.emulate_media(media="print")
    assert page.evaluate("getComputedStyle(document.documentElement).colorScheme") == "light"
    sizes = [
        float(page.evaluate(f"getComputedStyle(document.querySelector('{part}')).fontSize")[:-2])
        for part in (".need .words", ".need .what")
    ]
    assert sizes[0] <= sizes[1]


def test_night_that_submitted_nothing_says_so(opened: Any, tmp_path: Path) -> None:
    root = Library(tmp_path / "night", 1, is_bare=True).write()
    with Database.open(Layout(root).database) as database:
        (left,) = database.attempts()
        still_open = replace(left, state=TimedOut(left.task, time.time() + 8))
        night = [BeginRun("quiet", time.time()), EndRun("quiet", time.time() + 9, 1)]
        database.write([*night, Put(still_open)])
    page = opened(write_report(root, Presence, mode=Mode.NONE).path)
    page.locator(".night").scroll_into_view_if_needed()
    until(lambda: page.locator("#lanes svg text").count() > 0, "the night is drawn")
    told = " ".join(page.locator("#lanes svg text").all_text_contents())
    assert told.endswith("open tasks, at most 1 submitted per 1 s, at most 0")
    page.click("#night-table summary")
    assert page.locator("#night-rows td").first.inner_text() == "earlier"


def test_page_without_javascript_has_trouble_in_a_table(browser: Any, report: Path) -> None:
    context = browser.new_context(java_script_enabled=False)
    page = context.new_page()
    page.goto(report.as_uri())
    assert page.locator(".tiles dd").count() == 6
    rows = page.locator("noscript th[scope=row]").all_inner_texts()
    assert {"refused", "stuck", "lost"} <= set(rows)
    context.close()


def test_everything_is_reached_past_few_stops(opened: Any) -> None:
    page = opened()
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.className") == "skip"
    small = page.evaluate(
        """() => [...document.querySelectorAll("button, select, input")]
            .filter((node) => node.offsetHeight && node.offsetHeight < 28)
            .map((node) => node.outerHTML.slice(0, 80))"""
    )
    assert small == []


# -- wherever it is opened


def test_folder_that_moved_still_shows_its_videos(
    opened: Any, report: Path, tmp_path: Path
) -> None:
    moved = tmp_path / "moved #2 & more"
    moved.symlink_to(report.parent, target_is_directory=True)
    page = opened(moved / "report.html")
    page.locator(".card:has-text('teacup') .poster").click()
    until(lambda: page.evaluate("document.querySelector('#frames video').readyState >= 2"), "plays")


def test_page_elsewhere_finds_the_folder(opened: Any, folder: Path, tmp_path: Path) -> None:
    page = opened(write_report(folder, Presence, tmp_path / "morning.html").path)
    page.locator(".card:has-text('teacup') .poster").click()
    until(lambda: page.evaluate("document.querySelector('#frames video').readyState >= 2"), "plays")


@pytest.fixture
def served(report: Path) -> Iterator[str]:
    """Serve the folder as `python -m http.server` does, and return the page's address."""

    class Quiet(http.server.SimpleHTTPRequestHandler):
        def log_message(self, *_: object) -> None:
            pass

    handler = functools.partial(Quiet, directory=str(report.parent))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}/report.html"
        server.shutdown()
        thread.join()


def test_served_page_plays_its_videos(opened: Any, served: str) -> None:
    page = opened(served)
    page.locator(".card:has-text('teacup') .poster").click()
    until(lambda: page.evaluate("document.querySelector('#frames video').readyState >= 2"), "plays")
    page.troubles = [text for text in page.troubles if "favicon" not in text and "404" not in text]


# -- budgets


def inlined(content: str) -> int:
    """Return the bytes of style and script."""
    parts = re.findall(r"<style>(.*?)</style>|<script>(.*?)</script>", content, re.DOTALL)
    return sum(len((style + script).encode()) for style, script in parts)


@pytest.mark.parametrize(("jobs", "kilobytes"), [(500, 400), (5_000, 4_000)])
def test_page_stays_within_its_budgets(
    opened: Any, tmp_path: Path, jobs: int, kilobytes: int
) -> None:
    root = Library(tmp_path / "library", jobs, is_bare=True).write()
    report = write_report(root, Presence, mode=Mode.NONE)
    page = opened(report.path)
    assert report.bytes <= kilobytes * 1_000
    assert inlined(report.path.read_text("utf-8")) <= 45_000
    assert page.evaluate("document.querySelectorAll('*').length") <= 8_000
