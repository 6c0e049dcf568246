"""The screen at three widths, as it stands on the terminal."""

from __future__ import annotations

from dataclasses import replace

import pytest
from rich.text import Text

from batch.cli.drawing import as_line, draw
from batch.cli.view import View

VIEW = View(
    name="nature-loops",
    done=128,
    all=500,
    generating=5,
    downloading=2,
    failed=3,
    spent_usd=12.6,
    budget_usd=25.0,
    bytes_per_s=12_300_000,
    elapsed_s=252,
    left="about 14 min left",
    notes=["the provider has not answered for 12 s (connecting took too long); still trying"],
    troubles=[
        f"city-{n}: failed (moderation): it does not pass the risk control" for n in range(5)
    ],
)
AT_40 = """
nature-loops   128 of 500
5 generating
2 downloading at 12.3 MB/s
about $12.60 of $25.00   3 failed
4:12 so far, about 14 min left
! the provider has not answered for 12 s
  (connecting took too long); still
  trying
✗ city-2: failed (moderation): it does …
✗ city-3: failed (moderation): it does …
✗ city-4: failed (moderation): it does …
"""
AT_80 = """
nature-loops   ━━━━━━━━━━━━━───────────────────────────────────────   128 of 500
5 generating   2 downloading at 12.3 MB/s   about $12.60 of $25.00   3 failed
4:12 so far, about 14 min left
! the provider has not answered for 12 s (connecting took too long); still
  trying
✗ city-2: failed (moderation): it does not pass the risk control
✗ city-3: failed (moderation): it does not pass the risk control
✗ city-4: failed (moderation): it does not pass the risk control
"""
AT_160 = """
nature-loops   ━━━━━━━━━━━━━━━━━━──────────────────────────────────────────────────────   128 of 500
5 generating   2 downloading at 12.3 MB/s   about $12.60 of $25.00   3 failed
4:12 so far, about 14 min left
! the provider has not answered for 12 s (connecting took too long); still trying
✗ city-2: failed (moderation): it does not pass the risk control
✗ city-3: failed (moderation): it does not pass the risk control
✗ city-4: failed (moderation): it does not pass the risk control
"""


def shown(view: View, width: int, *, ascii_only: bool = False) -> str:
    """Return what stands on the terminal."""
    lines = draw(view, width, ascii_only=ascii_only)
    return "\n" + "\n".join(line.plain for line in lines) + "\n"


@pytest.mark.parametrize(("width", "expected"), [(40, AT_40), (80, AT_80), (160, AT_160)])
def test_screen_fits_its_width(width: int, expected: str) -> None:
    assert shown(VIEW, width) == expected


@pytest.mark.parametrize("width", [*range(1, 41), 79, 200])
@pytest.mark.parametrize("name", ["n", "狐" * 40, "nature-loops"])
def test_no_line_is_wider_than_the_terminal(width: int, name: str) -> None:
    """A folded line would be counted as one, and the screen would walk down."""
    view = replace(VIEW, name=name, troubles=["狐" * 100])
    assert all(line.cell_len <= width for line in draw(view, width))


def test_quiet_start_says_little() -> None:
    """No rate without a download, no forecast without experience, no failures."""
    view = View("a", done=0, all=2, generating=2, downloading=0, failed=0, spent_usd=0.42)
    assert shown(view, 60) == (
        "\na   ───────────────────────────────────────────────   0 of 2\n"
        "2 generating   0 downloading   about $0.42\n"
    )


def test_figures_keep_their_place() -> None:
    """From the first job to the last, and whether something fails or not."""
    first, last = replace(VIEW, done=0, failed=0), replace(VIEW, done=500, failed=12)
    for line, other in zip(
        shown(first, 80).splitlines(), shown(last, 80).splitlines(), strict=True
    ):
        assert other.replace("━", "─").startswith(line.partition("  0 of")[0].replace("━", "─"))


def test_bar_tells_failures_by_colour() -> None:
    """Even a single one is seen; and all done means all full."""
    head = draw(replace(VIEW, done=500, failed=1), 80)[0]
    (failed,) = (span for span in head.spans if str(span.style) == "red")
    assert head.plain[failed.start : failed.end] == "━"
    assert "─" not in head.plain


def test_terminal_without_unicode_gets_ascii() -> None:
    assert shown(VIEW, 60, ascii_only=True).isascii()


def test_words_of_others_are_no_markup() -> None:
    view = replace(VIEW, notes=["[red]a[/red]"], troubles=["[bold]b"])
    assert "[red]a[/red]" in shown(view, 80)
    assert "[bold]b" in shown(view, 80)
    assert isinstance(draw(view, 80)[0], Text)


def test_line_for_a_log_says_the_same() -> None:
    assert as_line(VIEW) == (
        "128 of 500 done, 5 generating, 2 downloading at 12.3 MB/s, about $12.60 of $25.00,"
        " 3 failed, about 14 min left"
    )


def test_no_text_is_in_a_colour_that_one_ground_swallows() -> None:
    """Yellow on a light ground, blue on a dark one."""
    styles = {str(span.style) for line in draw(VIEW, 80) for span in line.spans}
    styles |= {str(line.style) for line in draw(VIEW, 80)}
    assert styles <= {"", "bold", "dim", "green", "red", "bold red"}


@pytest.mark.parametrize(
    ("bytes_per_s", "said"),
    [(0, "2 downloading"), (12_000, "at 12 kB/s"), (250_000, "at 0.2 MB/s")],
)
def test_speed_is_told_in_the_unit_that_fits(bytes_per_s: float, said: str) -> None:
    assert f"{said}, about" in as_line(replace(VIEW, bytes_per_s=bytes_per_s))
