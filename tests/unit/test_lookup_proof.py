"""Look-up: whose a task is, and what proves that look-up works."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest
from scripted import ACCOUNT, NOT_FOUND, SAID, Stages, attempt, found, opened, play
from virtual_time import EPOCH

from batch.attempt import Attempt, Doubt, Intended, Lost, Unconfirmed
from batch.callbacks.hints import Hint
from batch.output.state import Put
from batch.provider.answers import Created, Task, TaskStatus
from batch.run.proof import PROOF_TRIES


def test_one_task_is_claimed_by_one_attempt(tmp_path: Path) -> None:
    """Neither attempt is on disk when both claims come, and the state takes its time to answer."""

    async def story(stages: Stages) -> list[bool]:
        task, lookup = Task("8", TaskStatus.SUBMITTED), stages.run.lookup
        first, second, third = (attempt(name=f"kb-{n}", job_id=f"{n}") for n in range(3))
        owner_of = stages.state.owner_of

        async def slow(task_id: str) -> str | None:
            await asyncio.sleep(1.0)
            return await owner_of(task_id)

        stages.state.owner_of = slow  # type: ignore[method-assign]
        claimants = (first, second, third, first)
        claims = await asyncio.gather(*(lookup.claims.take(task, one) for one in claimants))
        lookup.claims.release(task.task_id)
        return [*claims, await lookup.claims.take(task, second)]

    assert play(tmp_path, story) == [True, False, False, True, True]


def test_a_recorded_task_is_its_owners(tmp_path: Path) -> None:
    """A claim that is refused leaves the task to the attempt that it is recorded for."""

    async def story(stages: Stages) -> list[bool]:
        owner, other = attempt(opened("8")), attempt(name="kb-2", job_id="b")
        await stages.state.commit(Put(owner))
        task = Task("8", TaskStatus.SUBMITTED)
        return [await stages.run.lookup.claims.take(task, one) for one in (other, owner)]

    assert play(tmp_path, story) == [False, True]


@pytest.mark.parametrize("owner", [None, "kb-2"])
def test_one_task_in_two_answers_opens_one_attempt(tmp_path: Path, owner: str | None) -> None:
    """A relay answers two submissions with one task, whether it names an attempt or not."""

    async def story(stages: Stages) -> list[str]:
        stages.api.submits = [Created(Task("8", TaskStatus.SUBMITTED, external_task_id=owner))]
        stages.api.queries = [NOT_FOUND]
        stages.api.on_submit = lambda: asyncio.sleep(1.0)  # both are on their way
        both = attempt(name="kb-1"), attempt(name="kb-2", job_id="b")
        await asyncio.gather(*(stages.submit(one) for one in both))
        return [name for name in ("kb-1", "kb-2") if stages.phase_of(name) == "Open"]

    assert play(tmp_path, story, task_timeout_s=60.0) == [owner or "kb-1"]


@pytest.mark.parametrize(("proved_at", "is_proved"), [(EPOCH, True), (EPOCH + 3600.0, False)])
def test_a_proof_of_the_future_is_none(tmp_path: Path, proved_at: float, is_proved: bool) -> None:
    """The clock was set back since; the age of the proof is not known."""

    async def story(stages: Stages) -> bool:
        return stages.run.lookup.is_proved

    assert play(tmp_path, story, proved_at=proved_at) == is_proved


@pytest.mark.parametrize(("task_id", "is_proof"), [("8", True), ("9", False)])
def test_only_the_right_task_proves_look_up(tmp_path: Path, task_id: str, is_proof: bool) -> None:
    async def story(stages: Stages) -> tuple[bool, float | None]:
        stages.api.queries = [found(task_id=task_id)]
        await stages.run.lookup.proof.make(attempt(opened("8")))
        return stages.run.lookup.is_proved, stages.state.proofs.get(ACCOUNT)

    proved, remembered = play(tmp_path, story)
    assert proved is is_proof
    assert (remembered is not None) is is_proof


@pytest.mark.parametrize(("task_id", "expected"), [("7", Intended), ("6", Unconfirmed)])
def test_an_older_task_proves_look_up(tmp_path: Path, task_id: str, expected: type) -> None:
    """So what was lost is settled also in a run in which nothing new is accepted."""

    async def story(stages: Stages) -> tuple[Attempt, int]:
        async def query(identifier: str) -> Any:
            stages.api.calls.append((stages.loop.time(), "query", identifier))
            return found(task_id=task_id) if identifier == "kb-old" else NOT_FOUND

        await stages.state.commit(Put(attempt(opened("7"), name="kb-old", job_id="b")))
        await stages.wire()
        stages.api.query = query  # type: ignore[method-assign]
        reached = await stages.run.lookup.find(attempt(Lost(1.0, Doubt(SAID))), Hint())
        return reached, sum(what == "kb-old" for _, _, what in stages.api.calls)

    reached, asked = play(tmp_path, story)
    assert isinstance(reached.state, expected)
    assert asked == 1


def test_proof_is_tried_a_few_times_only(tmp_path: Path) -> None:
    """Where look-up is not supported, every run pays a handful of GETs and no more."""

    async def story(stages: Stages) -> int:
        stages.api.queries = [NOT_FOUND]
        while stages.run.lookup.proof.is_wanted:
            await stages.run.lookup.proof.make(attempt(opened("8")))
        return stages.api.count("query")

    assert play(tmp_path, story) == PROOF_TRIES
