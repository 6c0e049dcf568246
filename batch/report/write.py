"""Write the report of an output folder to a file that appears whole or not at all."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any
from urllib.parse import quote

from batch.errors import StateError
from batch.frozen import frozen
from batch.library.entries import Presence
from batch.output import disk
from batch.report.data import build
from batch.report.page import render
from batch.report.posters import BUDGET_S, Mode, Posters, posters, videos_of
from batch.report.records import read

NAME = "report.html"
LARGE = 50_000_000  # bytes; a browser takes seconds to open more
LARGE_LIBRARY = 20_000  # jobs; the page of a larger one is written only on request


@frozen
class Report:
    """A report that was written."""

    path: Path
    bytes: int
    data: dict[str, Any]
    posters: Posters

    @property
    def is_large(self) -> bool:
        """Whether a browser will take long to open it."""
        return self.bytes > LARGE

    def to_json(self) -> dict[str, Any]:
        """Return what `report --json` prints."""
        pictures = len(self.posters.inline) or len(self.posters.files)
        needs = [{"kind": need["kind"], "jobs": len(need["jobs"])} for need in self.data["needs"]]
        return {
            "schema": self.data["schema"],
            "file": str(self.path),
            "bytes": self.bytes,
            "running": self.data["running"],
            **self.data["tiles"],
            "kinds": needs,
            "posters": {
                "shown": pictures,
                "made": self.posters.made,
                "left": self.posters.left,
            },
        }


def write_report(
    root: Path,
    presence: Presence,
    target: Path | None = None,
    mode: Mode = Mode.AUTO,
    *,
    budget_s: float = BUDGET_S,
    up_to: int | None = None,
) -> Report:
    """Write the report of the output folder at *root*, also while a run is under way.

    Args:
        root: the output folder.
        presence: makes the judge of whether a video is here.
        target: the file; `report.html` in the folder if None.
        mode: where the posters go.
        budget_s: how long new posters may take.
        up_to: the most jobs that the library may have.

    Raises:
        StateError: the state cannot be read, or the file cannot be written; a former one stays.
        UsageError: the library is larger than *up_to*.
    """
    target = root / NAME if target is None else target
    page = build(read(root, presence, up_to))
    data = page.data
    videos = dict(pair for entry in data["jobs"] for pair in videos_of(entry))
    pictures = posters(root, videos, mode, budget_s=budget_s)
    data |= {"base": _base(root, target), "inline": pictures.inline, "posters": pictures.files}
    # A lone surrogate of a prompt becomes its escape, which JSON reads as the same.
    content = render(page).encode("utf-8", "backslashreplace")
    try:
        disk.write_whole(target, content)
    except OSError as error:
        raise StateError(
            f"the report {target} cannot be written ({error.strerror or error}); -o FILE writes it"
            " elsewhere"
        ) from error
    return Report(target, len(content), data, pictures)


def _base(root: Path, target: Path) -> str:
    """Return the way from the page to the folder, as a relative URL; empty if it is in there."""
    way = os.path.relpath(root.resolve(), target.parent.resolve())
    return "" if way == os.curdir else quote(Path(way).as_posix()) + "/"
