"""A provider that does not answer is reported after five seconds, and when it answers again."""

from __future__ import annotations

import asyncio
import logging
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from sample_jobs import feed, job
from scripted import NO_ANSWER, SAID, Stages, found, play

from batch import events
from batch.cli.logs import describe
from batch.provider.answers import Created, Task, TaskStatus, Unavailable, Unsent
from batch.run.silence import Listening

FOUND = found()
Silence = list[tuple[str, float]]


def told(stages: Stages) -> Silence:
    """Return what was said of silence, with the seconds."""
    kinds = (events.NotAnswering, events.AnsweringAgain)
    return [(type(e).__name__, round(e.seconds, 1)) for e in stages.events if isinstance(e, kinds)]


def queried(tmp_path: Path, *steps: tuple[float, float, Any]) -> Silence:
    """Query one after the other: wait, then be answered after a while; return what was said."""

    class Api:
        async def query(self, _identifier: str) -> Any:
            _, takes_s, answer = script.pop(0)
            await asyncio.sleep(takes_s)
            return answer

    async def story(stages: Stages) -> Silence:
        api: Any = Api()
        listening = Listening(api, stages.context)
        for wait_s, *_ in steps:
            await asyncio.sleep(wait_s)
            await listening.query("8")
        await asyncio.sleep(60.0)
        return told(stages)

    script = list(steps)
    return play(tmp_path, story)


@pytest.mark.parametrize(
    ("steps", "said"),
    [
        ([(0, 4.0, FOUND), (60, 4.0, FOUND)], []),
        ([(0, 7.0, FOUND)], [("NotAnswering", 5.0), ("AnsweringAgain", 7.0)]),
        ([(0, 0.1, NO_ANSWER)], []),
        ([(0, 0.1, NO_ANSWER), (20, 0.1, FOUND)], []),
        (
            [(0, 0.1, NO_ANSWER), (3, 0.1, NO_ANSWER), (3, 0.1, NO_ANSWER), (100, 0.1, FOUND)],
            [("NotAnswering", 6.3), ("AnsweringAgain", 106.4)],
        ),
        ([(0, 0.1, NO_ANSWER), (1, 90.0, NO_ANSWER)], [("NotAnswering", 6.1)]),
        (
            [(0, 9.0, FOUND), (50, 9.0, FOUND)],
            [("NotAnswering", 5.0), ("AnsweringAgain", 9.0)] * 2,
        ),
    ],
)
def test_silence_is_told_once_with_its_end(tmp_path: Path, steps: Any, said: Silence) -> None:
    assert queried(tmp_path, *steps) == said


def test_refusal_is_an_answer(tmp_path: Path) -> None:
    """A provider with trouble of its own is not silent."""
    refused = Unavailable(replace(SAID, http_status=503))
    assert queried(tmp_path, *[(3.0, 0.1, refused)] * 9) == []


def test_unreachable_provider_is_told_during_a_run(tmp_path: Path) -> None:
    """Nothing could be connected to for a while: one sentence, and another when it is over."""

    async def story(stages: Stages) -> Silence:
        accepted = Created(Task("8", TaskStatus.SUBMITTED))
        stages.api.submits = [*[Unsent(SAID)] * 6, accepted]
        stages.api.queries = [found(TaskStatus.FAILED)]
        await feed(stages, job())
        return told(stages)

    (first, seconds), (last, in_all) = play(tmp_path, story)
    assert (first, last) == ("NotAnswering", "AnsweringAgain")
    assert 5.0 <= seconds < in_all


@pytest.mark.parametrize(
    ("event", "level", "sentence"),
    [
        (
            events.NotAnswering(5.2, "connecting took too long"),
            logging.WARNING,
            "the provider has not answered for 5 s (connecting took too long); still trying",
        ),
        (
            events.NotAnswering(5.2, None),
            logging.WARNING,
            "the provider has not answered for 5 s; still trying",
        ),
        (
            events.AnsweringAgain(125.0),
            logging.INFO,
            "the provider answers again, after 125 s",
        ),
    ],
)
def test_silence_is_told_in_a_sentence(event: Any, level: int, sentence: str) -> None:
    assert describe(event) == (level, sentence)
