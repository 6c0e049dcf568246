"""The dialog of a job: opening, moving on, comparing two versions."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from libraries import Library
from watched import until

from batch.report.posters import Mode
from batch.report.write import write_report
from batch.run.presence import Presence

STATE = """() => [...document.querySelectorAll("#frames video")].map((v) => ({
    at: v.currentTime, paused: v.paused, ready: v.readyState, muted: v.muted, src: v.src }))"""


def opened_job(page: Any, job_id: str) -> None:
    page.locator(f".card:has(h3[title='{job_id}']) .poster").click()


def title(page: Any) -> str:
    text: str = page.locator("#box-title").inner_text()
    return text


def focused(page: Any) -> str | None:
    label: str | None = page.evaluate("document.activeElement.getAttribute('aria-label')")
    return label


def players(page: Any) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = page.evaluate(STATE)
    return found


def test_escape_closes_and_returns_the_focus(opened: Any) -> None:
    page = opened()
    opened_job(page, "teacup")
    assert title(page) == "teacup"
    assert "open=teacup" in page.evaluate("location.hash")
    page.keyboard.press("Escape")
    until(lambda: "open=" not in page.evaluate("location.hash"), "closed")
    assert page.locator("#box").is_hidden()
    assert focused(page) == "Open teacup, succeeded"


def test_arrows_go_through_what_is_shown(opened: Any) -> None:
    page = opened(hash_="#show=changed")
    opened_job(page, "fox")
    page.keyboard.press("ArrowRight")
    assert title(page) == "deer"
    page.keyboard.press("ArrowRight")
    assert title(page) == "deer"
    page.keyboard.press("Escape")
    until(lambda: "open=" not in page.evaluate("location.hash"), "closed")
    assert focused(page) == "Open deer, succeeded"


def test_enter_opens_with_the_keyboard_alone(opened: Any) -> None:
    page = opened()
    page.keyboard.press("Tab")
    page.keyboard.press("Enter")  # the skip link
    for _ in range(20):
        page.keyboard.press("Tab")
        if page.evaluate("document.activeElement.className") == "poster":
            break
    page.keyboard.press("Enter")
    assert title(page) == "fox"


def test_address_opens_a_job(opened: Any) -> None:
    assert title(opened(hash_="#open=city%2Fnight")) == "city/night"


def test_pair_plays_together_and_shows_the_difference(opened: Any) -> None:
    page = opened()
    opened_job(page, "fox")
    until(lambda: all(v["ready"] >= 2 and not v["paused"] for v in players(page)), "playing")
    first, second = players(page)
    assert abs(first["at"] - second["at"]) < 0.3
    assert (first["muted"], second["muted"]) == (True, True)
    assert page.locator("#info .text del").all_inner_texts() == ["static camera,"]
    assert page.locator("#info .text ins").all_inner_texts() == ["slow push in,"]
    assert page.evaluate("document.querySelectorAll('video').length") <= 3


def test_wipe_cuts_where_the_slider_stands(opened: Any) -> None:
    page = opened()
    opened_job(page, "fox")
    page.click("[data-mode=wipe]")
    page.locator("#frames input").fill("25")
    cut = page.evaluate("getComputedStyle(document.querySelector('#frames .now video')).clipPath")
    assert "25" in cut or "px" in cut
    left = page.locator(".before video").bounding_box()
    right = page.locator(".now video").bounding_box()
    assert left == right


def test_one_at_a_time_is_flipped_by_a_key(opened: Any) -> None:
    page = opened()
    opened_job(page, "fox")
    page.keyboard.press("b")
    assert page.locator(".frames .before").is_visible()
    assert not page.locator(".frames .now").is_visible()
    page.keyboard.press("b")
    assert page.locator(".frames .now").is_visible()


def test_different_ratios_cannot_be_wiped(opened: Any) -> None:
    page = opened()
    opened_job(page, "deer")
    assert page.locator("[data-mode=wipe]").is_disabled()
    assert page.locator("#unlike").is_visible()
    assert page.locator("#info dd:has(del)").first.inner_text()


def test_pair_of_different_lengths_begins_again_together(opened: Any) -> None:
    page = opened()
    opened_job(page, "deer")  # 5 s before, 10 s now
    until(lambda: all(v["ready"] >= 2 for v in players(page)), "ready")
    page.evaluate("document.querySelectorAll('#frames video').forEach((v) => v.currentTime = 4.6)")
    until(lambda: all(v["at"] < 3 and not v["paused"] for v in players(page)), "again")


def test_player_that_drifts_is_set_right(opened: Any) -> None:
    page = opened()
    opened_job(page, "fox")
    until(lambda: all(v["ready"] >= 2 for v in players(page)), "ready")
    page.keyboard.press("Space")
    page.evaluate("document.querySelector('#frames .before video').currentTime = 3")
    until(lambda: abs(players(page)[0]["at"] - players(page)[1]["at"]) < 0.1, "together")


def test_comma_and_point_move_one_frame(opened: Any) -> None:
    page = opened()
    opened_job(page, "fox")
    until(lambda: all(v["ready"] >= 2 for v in players(page)), "ready")
    page.keyboard.press(".")
    first = players(page)[1]["at"]
    page.keyboard.press(".")
    assert round(players(page)[1]["at"] - first, 3) == round(1 / 24, 3)
    assert all(player["paused"] for player in players(page))


def test_sound_is_that_of_one_side(opened: Any) -> None:
    page = opened()
    opened_job(page, "fox")
    page.select_option("#sound", "1")
    assert [player["muted"] for player in players(page)] == [True, False]


def test_version_is_left_out_of_the_comparison(opened: Any) -> None:
    page = opened()
    opened_job(page, "fox")
    page.click(".versions button")
    assert len(players(page)) == 1
    assert page.locator("#controls").is_hidden()


def test_closing_lets_go_of_the_files(opened: Any) -> None:
    page = opened()
    opened_job(page, "fox")
    page.click("#close")
    until(lambda: not any(player["src"] for player in players(page)), "let go")


def test_trouble_is_opened_from_what_needs_you(opened: Any) -> None:
    page = opened()
    page.get_by_role("button", name="refused", exact=True).click()
    assert title(page) == "refused"
    assert "risk control" in page.locator("#info .error").inner_text()


def test_bar_of_the_night_opens_its_job(opened: Any) -> None:
    page = opened()
    page.locator(".night").scroll_into_view_if_needed()
    page.locator("svg .task").first.focus()
    page.keyboard.press("ArrowRight")
    page.keyboard.press("Enter")
    assert page.locator("#box").is_visible()


def test_pruned_orphan_is_not_compared_with_itself(opened: Any, tmp_path: Path) -> None:
    """No video of its own stands in videos/: the one on its card is a former one."""
    root = Library(tmp_path / "pruned", 1, pruned="gone").write()
    page = opened(write_report(root, Presence, mode=Mode.NONE).path)
    opened_job(page, "gone")
    assert len(players(page)) == 1
    assert page.locator("#controls").is_hidden()
