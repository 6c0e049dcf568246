"""A run that dies or is cancelled at any of its steps, and the next run: no request is paid twice."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from sample_jobs import feed, job, tried
from scripted import ACCOUNT, NOT_FOUND, SAID, Stages, attempt, landed, play
from virtual_time import EPOCH

from batch.attempt import Doubt, Unconfirmed
from batch.output.state import Put
from batch.plan import Policy
from batch.provider.answers import Ambiguous, Created, Found, SubmitAnswer, Task, TaskStatus

ON_REQUEST = Policy(resubmit_unconfirmed=True)
VISIBLE_AFTER_S = 5.0


class Provider:
    """Creates a task for each request, and fails it at once. *finds*: look-up works."""

    def __init__(self, answer: Callable[[Task], SubmitAnswer], *, finds: bool = True) -> None:
        self.created: list[str] = []
        self.finds = finds
        self._answer = answer
        self._visible_at = 0.0

    async def submit(self, body: dict[str, Any], **_how: Any) -> SubmitAnswer:
        self.created.append(body["external_task_id"])
        self._visible_at = asyncio.get_running_loop().time() + VISIBLE_AFTER_S
        return self._answer(self._task(self.created[-1]))

    async def query(self, identifier: str) -> Any:
        is_ours = identifier.startswith("kb-")
        name = identifier if is_ours else identifier.removeprefix("task-of-")
        is_visible = self._visible_at <= asyncio.get_running_loop().time()
        is_found = name in self.created and is_visible and (self.finds or not is_ours)
        return Found(self._task(name)) if is_found else NOT_FOUND

    @staticmethod
    def _task(name: str) -> Task:
        failed, why = TaskStatus.FAILED, "risk control"
        return Task(f"task-of-{name}", failed, message=why, external_task_id=name)


class Cut:
    """Cancels a run at one of its steps: before (even) or after (odd) what it does there."""

    def __init__(self, at: int) -> None:
        self.at = at
        self.steps = 0
        self.victim: asyncio.Task[Any] | None = None

    def around(self, work: Callable[..., Awaitable[Any]]) -> Any:
        async def wrapped(*args: Any, **kwargs: Any) -> Any:
            await self.step()
            result = await work(*args, **kwargs)
            await self.step()
            return result

        return wrapped

    async def step(self) -> None:
        self.steps += 1
        if self.steps - 1 == self.at and self.victim is not None:
            self.victim.cancel()
            await asyncio.Event().wait()

    async def run(self, stages: Stages) -> None:
        """Carry out the plan for one job, up to the cut."""
        self.victim = asyncio.create_task(feed(stages, job()))
        with suppress(asyncio.CancelledError):
            await self.victim
        self.victim = None
        assert stages.run.gate.slots.in_use == 0


async def two_runs(
    stages: Stages, provider: Provider, step: int, between: Callable[[], None] = lambda: None
) -> bool:
    """Cut a run at *step*, let the next one end; return whether the first got so far."""
    cut, api, state = Cut(step), stages.api, stages.state
    api.submit = cut.around(provider.submit)  # type: ignore[method-assign]
    api.query = cut.around(provider.query)  # type: ignore[method-assign]
    for name in ("commit", "owner_of", "attempt"):
        setattr(state, name, cut.around(getattr(state, name)))
    await cut.run(stages)
    was_cut = cut.steps == step + 1
    between()
    again = Stages(stages.videos.layout.root, stages.loop, stages.context.limits, Policy())
    again.state, again.api = state, api
    await again.wire()
    await feed(again, job())
    return was_cut


ANSWERS: dict[str, Callable[[Task], SubmitAnswer]] = {
    "accepted": Created,
    "lost": lambda _task: Ambiguous(SAID),
    "another's": lambda _task: Created(Task("8", TaskStatus.SUBMITTED)),
}


@pytest.mark.parametrize("proved_at", [EPOCH, None])
@pytest.mark.parametrize("answer", ANSWERS.values(), ids=ANSWERS)
def test_a_run_cut_at_any_step_pays_once(
    tmp_path: Path, answer: Callable[[Task], SubmitAnswer], proved_at: float | None
) -> None:
    """Where look-up is proved the video is paid once, else at most once."""

    async def story(stages: Stages, step: int) -> tuple[bool, int]:
        other = attempt(landed("8", "videos/b.mp4", 1), name="kb-other", job_id="b")
        await stages.state.commit(Put(replace(other, fingerprint="v2:another")))
        provider = Provider(answer)
        return await two_runs(stages, provider, step), len(provider.created)

    was_cut, step = True, 0
    while was_cut:
        was_cut, paid = play(tmp_path, partial(story, step=step), proved_at=proved_at)
        assert paid == 1 or (paid == 0 and proved_at is None), f"step {step}"
        step += 1
    assert step > 12


@pytest.mark.parametrize("exists", [True, False])
def test_a_resubmission_cut_anywhere_is_sent_once(tmp_path: Path, exists: bool) -> None:
    """Look-up proves itself between the two runs, and then finds what the first one sent."""

    async def story(stages: Stages, step: int) -> tuple[bool, int, str | None, str]:
        await stages.state.commit(Put(tried(Unconfirmed(1.0, Doubt(SAID, exists)), job())))
        provider = Provider(ANSWERS["lost"], finds=False)

        def prove() -> None:
            provider.finds = True
            stages.state.proofs[ACCOUNT] = stages.clock.now()

        was_cut = await two_runs(stages, provider, step, prove)
        status = json.loads(stages.state.rows[-1])["status"]
        return was_cut, len(provider.created), stages.phase_of("kb-0"), status

    was_cut, step = True, 0
    while was_cut:
        tale = partial(story, step=step)
        was_cut, sent, phase, status = play(tmp_path, tale, policy=ON_REQUEST)
        assert sent <= 1, f"step {step}"
        known = ("Failed", "failed") if sent else ("Unconfirmed", "unconfirmed")
        assert (phase, status) == known, f"step {step}"
        step += 1
    assert step > 12


def test_cancelled_slot_wait_gives_none_back(tmp_path: Path) -> None:
    async def story(stages: Stages) -> int:
        first, second = await stages.enter(), await stages.occupy(1)
        waiting = asyncio.create_task(first.requeue())
        await asyncio.sleep(1.0)
        waiting.cancel()
        await asyncio.wait([waiting])
        first.leave()
        in_use = stages.run.gate.slots.in_use
        second.leave()
        return in_use

    assert play(tmp_path, story, max_in_flight=1) == 1


def test_a_cancelled_wait_for_a_turn_leaves_nothing(tmp_path: Path) -> None:
    """Nothing is on disk or sent, and the next job has its turn."""

    async def story(stages: Stages) -> None:
        stages.run.gate.pacer.pause(60.0)
        stages.api.submits = [Created(Task("8", TaskStatus.SUBMITTED))]
        stages.api.queries = [NOT_FOUND]
        waiting = asyncio.create_task(stages.submit(attempt()))
        other = asyncio.create_task(stages.submit(attempt(name="kb-2", job_id="b")))
        await asyncio.sleep(1.0)
        waiting.cancel()
        reached = await other
        assert waiting.cancelled()
        assert reached is not None
        assert reached.task_id == "8"
        assert list(stages.state.attempts) == ["kb-2"]
        assert stages.api.count("submit") == 1

    play(tmp_path, story)
