"""For tests of downloads: a video, bodies that deliver it, and a landing that plays them."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

from fake_provider import video
from scripted import SAID, Body, Raises, Stages, attempt, found, generated, play

from batch.attempt import Attempt
from batch.provider.answers import TaskStatus
from batch.provider.protocol import BrokenFetchError, ExpiredLinkError

VIDEO = video("8", 6000)
SIZE = len(VIDEO)
FILE = "videos/a.mp4"
LINK = found(TaskStatus.SUCCEEDED, url="https://cdn/fresh")
BROKEN, EXPIRED = Raises(BrokenFetchError(SAID)), Raises(ExpiredLinkError(SAID))
LATE_S = 5000.0


def whole(**how: Any) -> Body:
    """Return a body of the whole video."""
    return Body([VIDEO[:2000], VIDEO[2000:]], total=SIZE, **how)


def torn(first: int, last: int, **how: Any) -> Body:
    """Return a body from one byte to another, where it breaks."""
    return Body([VIDEO[first:last]], total=SIZE, start=first, breaks=True, **how)


async def land(
    stages: Stages, *, of: Attempt | None = None, link: str | None = "https://cdn/first"
) -> Any:
    """Land the video of an attempt at `FILE`, by default a *Generated* one."""
    return await stages.run.landing.land(of or attempt(generated()), link, file=FILE)


def landed(
    root: Path,
    fetches: list[Any],
    queries: list[Any] | None = None,
    *,
    offset_s: float = 0.0,
    of: Attempt | None = None,
    link: str | None = "https://cdn/first",
    **limits: Any,
) -> tuple[Any, Stages]:
    """Play a landing *offset_s* after virtual time began; return the attempt and the stages."""

    async def story(stages: Stages) -> tuple[Any, Stages]:
        await asyncio.sleep(LATE_S)  # shows a time measured from zero by mistake
        stages.clock.offset = offset_s - LATE_S
        bodies = [
            replace(body, pieces=list(body.pieces)) if isinstance(body, Body) else body
            for body in fetches
        ]
        stages.api.fetches, stages.api.queries = bodies, list(queries or [LINK])
        return await land(stages, of=of, link=link), stages

    return play(root, story, **limits)


def asked(stages: Stages, kind: str = "fetch") -> list[str]:
    """Return the requested links or ids."""
    return [what for _, called, what in stages.api.calls if called == kind]


def gaps(stages: Stages, kind: str) -> list[float]:
    """Return the seconds between one call and the next."""
    return [after - before for before, after in pairwise(stages.api.times(kind))]
