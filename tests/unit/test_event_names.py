"""The tables in the manual name every event and every metric, so that no name changes unnoticed."""

from __future__ import annotations

import re
from dataclasses import fields
from importlib import resources
from typing import get_args

from batch.cli.metrics import METRICS, PREFIX
from batch.events import Event

PAGE = resources.files("batch.cli").joinpath("pages/operations.md").read_text("utf-8")
SHOWN_AS = {"failure": "`error`", "row": "the row, without `prompt` and `options`"}


def event_row(kind: type) -> str:
    """Return the line of the table about one event."""
    named = (SHOWN_AS.get(entry.name, f"`{entry.name}`") for entry in fields(kind))
    about = " ".join((kind.__doc__ or "").strip().split("\n\n")[0].split()).replace("*", "")
    return f"| `{kind.__name__}` | {', '.join(named)} | {about} |"


def test_manual_lists_every_event() -> None:
    """As `batch/events.py` has them; copy what is missing from the message."""
    expected = [event_row(kind) for kind in get_args(Event)]
    found = [line for line in PAGE.splitlines() if re.match(r"\| `[A-Z]\w+`", line)]
    assert found == expected, "\n".join(expected)


def test_manual_lists_every_metric() -> None:
    expected = [f"| `{PREFIX}{name}` | {about} |" for name, about in METRICS.items()]
    found = [line for line in PAGE.splitlines() if line.startswith(f"| `{PREFIX}")]
    assert found == expected, "\n".join(expected)
