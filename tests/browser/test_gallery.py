"""The gallery: what is shown, found, sorted, and kept in the address."""

from __future__ import annotations

from typing import Any

import pytest


def ids(page: Any) -> list[str]:
    found: list[str] = page.locator(".card h3").all_text_contents()
    return found


def chip(page: Any, value: str) -> None:
    page.locator(f".chips button[value='{value}']").click()


def test_gallery_stands_in_the_order_of_the_manifest(opened: Any) -> None:
    page = opened()
    assert ids(page)[:4] == ["fox", "deer", "teacup", "city/night"]
    assert ids(page)[-2:] == ["owl", "gone"]  # an orphan comes last
    assert page.locator("#count").inner_text() == "14 of 14"


@pytest.mark.parametrize(
    ("value", "found"),
    [
        ("changed", ["fox", "deer"]),
        ("new", ["owl"]),
        ("former", ["fox", "deer"]),
        ("needs", ["refused", "stuck", "cut", "lost"]),
    ],
)
def test_chip_shows_its_jobs(opened: Any, value: str, found: list[str]) -> None:
    page = opened()
    chip(page, value)
    assert ids(page) == found
    assert page.locator("#count").inner_text() == f"{len(found)} of 14"
    pressed = page.locator(".chips button[aria-pressed=true]")
    assert pressed.evaluate("button => button.value") == value
    chip(page, "")
    assert len(ids(page)) == 14


def test_search_finds_ids_prompts_tags_and_errors(opened: Any) -> None:
    page = opened()
    for words, found in (
        ("owl", ["owl"]),
        ("steam TEACUP", ["teacup"]),
        ("nature", ["fox", "deer"]),
        ("risk control", ["refused"]),
        ("static camera", ["fox"]),  # of a former version
    ):
        page.fill("#q", words)
        assert ids(page) == found, words


def test_chip_keeps_the_search(opened: Any) -> None:
    page = opened()
    page.fill("#q", "a ")
    chip(page, "changed")
    page.fill("#q", "deer")
    assert ids(page) == ["deer"]
    chip(page, "new")
    assert page.locator("#none").inner_text() == "No job matches what is chosen."
    assert page.input_value("#q") == "deer"


def test_address_brings_everything_back(opened: Any) -> None:
    page = opened()
    page.fill("#q", "fox")
    chip(page, "changed")
    page.select_option("#sort", "name")
    page.select_option("#tag", "nature")
    again = opened(hash_=page.evaluate("location.hash"))
    assert ids(again) == ["fox"]
    assert again.input_value("#q") == "fox"
    assert again.input_value("#sort") == "name"
    assert again.input_value("#tag") == "nature"


def test_tag_model_and_order_are_applied(opened: Any) -> None:
    page = opened()
    page.select_option("#tag", "city")
    assert ids(page) == ["city/night"]
    page.select_option("#tag", "")
    page.select_option("#model", "kling-v3")
    assert ids(page) == ["teacup", "owl"]
    page.select_option("#sort", "newest")
    assert ids(page) == ["owl", "teacup"]


def test_slash_searches_and_typing_is_never_taken(opened: Any) -> None:
    page = opened()
    page.keyboard.press("/")
    page.keyboard.type("fox?,.b/")
    assert page.input_value("#q") == "fox?,.b/"
    assert page.locator("dialog[open]").count() == 0


def test_question_mark_lists_the_keys(opened: Any) -> None:
    page = opened()
    page.keyboard.press("?")
    assert page.locator("#keys").is_visible()
    page.keyboard.press("Escape")
    assert not page.locator("#keys").is_visible()
