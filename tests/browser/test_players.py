"""What plays under the pointer, what stands in for a picture, and what is let go."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest
from libraries import Library
from watched import until

from batch.report.posters import Mode
from batch.report.write import write_report
from batch.run.presence import Presence

PREVIEW = "document.querySelector('.poster video')"


@pytest.fixture(scope="session")
def bare(report: Path) -> Path:
    """Return the page of the same folder without posters."""
    root = report.parent
    return write_report(root, Presence, root / "bare.html", Mode.NONE).path


def poster(page: Any, job_id: str) -> Any:
    return page.locator(f".card:has(h3[title='{job_id}']) .poster")


def test_pointer_plays_and_leaving_lets_go(opened: Any) -> None:
    page = opened()
    poster(page, "teacup").hover()
    until(lambda: page.evaluate(f"{PREVIEW}?.currentTime > 0"), "plays")
    assert page.evaluate("document.querySelectorAll('video').length") == 1
    preview = page.evaluate_handle(PREVIEW)
    page.mouse.move(2, 2)
    until(lambda: page.evaluate(f"{PREVIEW} === null"), "gone")
    assert preview.evaluate("video => video.hasAttribute('src')") is False


def test_next_card_takes_the_player_over(opened: Any) -> None:
    page = opened()
    for job_id in ("teacup", "fox"):
        poster(page, job_id).hover()
        until(lambda: page.evaluate(f"{PREVIEW}?.currentTime > 0"), "plays")
    assert page.evaluate("document.querySelectorAll('video').length") == 1
    assert page.evaluate(f"{PREVIEW}.src").endswith("/videos/fox.mp4")


def test_reduced_motion_plays_nothing_by_itself(opened: Any) -> None:
    page = opened(reduced_motion="reduce")
    poster(page, "teacup").hover()
    page.wait_for_timeout(300)
    assert page.evaluate(PREVIEW) is None
    poster(page, "teacup").click()
    assert page.evaluate("document.querySelector('#frames video').paused")


def test_touch_opens_the_job(opened: Any) -> None:
    page = opened(has_touch=True)
    poster(page, "teacup").tap()
    assert page.locator("#box-title").inner_text() == "teacup"
    assert page.evaluate(PREVIEW) is None


def test_without_posters_first_frames_are_drawn(opened: Any, bare: Path) -> None:
    page = opened(bare)
    assert page.locator(".poster img").count() == 0
    page.locator("#cards").scroll_into_view_if_needed()
    until(lambda: poster(page, "teacup").locator("canvas").count() == 1, "drawn")
    until(lambda: poster(page, "broken").locator(".no").count() == 1, "no picture")
    assert poster(page, "broken").inner_text().startswith("no picture")


def test_poster_that_is_gone_is_drawn_instead(opened: Any, folder: Path) -> None:
    path = write_report(folder, Presence, folder / "files.html", Mode.FILES).path
    shutil.rmtree(folder / ".kling-batch/posters")
    page = opened(path)
    page.locator("#cards").scroll_into_view_if_needed()
    until(lambda: poster(page, "teacup").locator("canvas").count() == 1, "drawn")


def test_missing_and_broken_videos_say_so(opened: Any) -> None:
    page = opened()
    assert poster(page, "lost").inner_text() == "not here\n5 s"
    poster(page, "lost").click()
    assert "is downloaded, unpaid" in page.locator("#frames").inner_text()
    page.keyboard.press("Escape")
    poster(page, "broken").click()
    page.get_by_text("This video cannot be played.").wait_for()


def test_large_library_comes_by_and_by(opened: Any, tmp_path: Path) -> None:
    root = Library(tmp_path / "large", 1_500, is_bare=True).write()
    page = opened(write_report(root, Presence, mode=Mode.NONE).path)
    assert page.locator(".card").count() == 200
    page.locator("#more").scroll_into_view_if_needed()
    until(lambda: page.locator(".card").count() >= 400, "more")
    page.fill("#q", "fox/at-dawn-000")  # beyond what is placed, too: the data is searched
    assert page.locator("#count").inner_text() == "1 of 1500"
