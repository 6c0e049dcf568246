"""A view is drawn at any width, and told in one line."""

from __future__ import annotations

import textwrap
from collections.abc import Iterable, Iterator

from rich.text import Text

from batch.cli.view import View

WIDEST = 100  # columns: on a wider terminal the eye would lose the line
NARROWEST_BAR = 20
NAME_WIDTH = 32
GAP = "   "
TROUBLES = 3
NOTE_LINES = 3


def draw(view: View, width: int, *, ascii_only: bool = False) -> list[Text]:
    """Return the lines that show *view* in so many columns."""
    columns = min(width, WIDEST)
    lines = [_head(view, columns, ascii_only=ascii_only)]
    lines += _flow(_figures(view), columns)
    if times := _times(view):
        lines.append(Text(times, style="dim"))
    for note in view.notes:
        folded = textwrap.wrap(f"! {note}", width, subsequent_indent="  ")
        # Bold, not yellow: on a light ground nobody could read that.
        lines += [Text(line, style="bold") for line in folded[:NOTE_LINES]]
    mark = "x " if ascii_only else "✗ "
    lines += [Text.assemble((mark, "red"), said) for said in view.troubles[-TROUBLES:]]
    for line in lines:
        line.truncate(width, overflow="crop" if ascii_only else "ellipsis")
    return lines


def as_line(view: View) -> str:
    """Return *view* as one line for a log."""
    parts = [f"{view.done} of {view.all} done", *(figure.plain for figure in _figures(view))]
    return ", ".join(parts + ([view.left] if view.left else []))


def _head(view: View, columns: int, *, ascii_only: bool) -> Text:
    """Return name, bar and count; a narrow terminal drops the bar."""
    name = Text(view.name, style="bold")
    count = f"{view.done:>{len(str(view.all))}} of {view.all}"
    name.truncate(min(NAME_WIDTH, max(columns - len(count) - len(GAP), 1)), overflow="ellipsis")
    room = columns - name.cell_len - len(count) - 2 * len(GAP)
    if room < NARROWEST_BAR:
        return Text.assemble(name, GAP, count.lstrip())
    return Text.assemble(name, GAP, _bar(view, room, ascii_only=ascii_only), GAP, count)


def _bar(view: View, room: int, *, ascii_only: bool) -> Text:
    """Return a bar in which what failed is told by its colour and (without colours) by the figures."""
    full, rest = ("#", "-") if ascii_only else ("━", "─")
    done = room * view.done // max(view.all, 1)
    failed = min(-(-room * view.failed // max(view.all, 1)), done)
    return Text.assemble(
        (full * (done - failed), "green"), (full * failed, "red"), (rest * (room - done), "dim")
    )


def _figures(view: View) -> Iterator[Text]:
    """Yield the figures; those that come and go stand last, so that the others keep their place."""
    yield Text(f"{view.generating} generating")
    rate = f" at {_speed(view.bytes_per_s)}" if view.bytes_per_s else ""
    yield Text(f"{view.downloading} downloading{rate}")
    budget = "" if view.budget_usd is None else f" of ${view.budget_usd:.2f}"
    yield Text(f"about ${view.spent_usd:.2f}{budget}")
    if view.failed:
        yield Text(f"{view.failed} failed", style="bold red")


def _flow(figures: Iterable[Text], columns: int) -> list[Text]:
    """Return the figures side by side, in as many lines as they take."""
    lines: list[Text] = []
    for figure in figures:
        if lines and lines[-1].cell_len + len(GAP) + figure.cell_len <= columns:
            lines[-1].append(GAP).append_text(figure)
        else:
            lines.append(figure)
    return lines


def _times(view: View) -> str:
    said = [] if view.elapsed_s is None else [f"{_clock(view.elapsed_s)} so far"]
    return ", ".join(said + ([view.left] if view.left else []))


def _speed(bytes_per_s: float) -> str:
    if bytes_per_s < 1e5:
        return f"{bytes_per_s / 1e3:.0f} kB/s"
    return f"{bytes_per_s / 1e6:.1f} MB/s"


def _clock(seconds: float) -> str:
    minutes, rest = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"
