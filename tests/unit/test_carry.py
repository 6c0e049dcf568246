"""What a worker does with a job that another one had begun."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from memory_state import known_of
from sample_jobs import job, tried
from scripted import NOT_FOUND, Stages, landed, play

from batch.engines.carry import Opened, carry_out
from batch.engines.terms import Terms, works
from batch.job import Failure, FailureKind
from batch.output.fleet import Assignment, Claim, JobState
from batch.output.state import Put, Uploaded
from batch.plan import Action, Decision, Policy
from batch.provider.answers import Refused
from batch.target import Target

BUCKET = "s3://studio"
NOTHING: Any = None  # for what these jobs do not come to


@pytest.mark.parametrize(
    ("is_removed", "is_uploaded", "asked"),
    [(True, True, 0), (True, False, 1), (False, True, 1)],
)
def test_video_in_the_bucket_is_not_missed(
    tmp_path: Path, *, is_removed: bool, is_uploaded: bool, asked: int
) -> None:
    """Where it need not be here, nothing is to be done for it."""

    async def story(stages: Stages) -> JobState | None:
        stages.api.queries = [NOT_FOUND]
        made = landed("8", job().video_path, 9)
        attempt = tried(made, job())
        await stages.state.commit(Put(attempt))
        if is_uploaded:
            record = Uploaded(BUCKET, "videos/was-named.mp4", made.sha256, 9, 1.0)
            await stages.state.commit(record)
        terms = Terms("n", "n.yaml", stages.context.limits, Policy())
        terms = replace(terms, target=Target(BUCKET, removes=is_removed))
        opened = Opened(NOTHING, terms, NOTHING, stages.run, lambda _item: False)
        planned = Decision(Action.UNCHANGED, "a", "up to date", job())
        (work,) = works([(0, planned)])
        claim, known = Claim("library", "r", "a", 1), tuple(known_of([attempt]))
        state = await carry_out(opened, Assignment(claim, work, has_begun=True, known=known))
        assert stages.api.count("query") == asked
        return state

    is_done = play(tmp_path, story) is JobState.DONE
    assert is_done == (asked == 0)


@pytest.mark.parametrize("is_former", [True, False])
def test_attempt_withdrawn_by_a_dead_worker_is_missed(tmp_path: Path, *, is_former: bool) -> None:
    """It was never sent; what was planned with it is decided anew."""

    async def story(stages: Stages) -> JobState | None:
        stages.api.submits = [Refused(Failure(FailureKind.MODERATION, "no"))]
        made = tried(landed("8", job().video_path, 9), job())
        if is_former:
            await stages.state.commit(Put(made))
            planned = Decision(Action.UNCHANGED, "a", "up to date", job(), former=("kb-9",))
        else:
            planned = Decision(Action.RESUME, "a", "an answer was lost", job(), attempt="kb-9")
        terms = Terms("n", "n.yaml", stages.context.limits, Policy())
        opened = Opened(NOTHING, terms, NOTHING, stages.run, lambda _item: True)
        (work,) = works([(0, planned)])
        state = await carry_out(opened, Assignment(Claim("library", "r", "a", 1), work))
        assert stages.api.count("submit") == (0 if is_former else 1)
        return state

    assert play(tmp_path, story) in {JobState.DONE, None}
