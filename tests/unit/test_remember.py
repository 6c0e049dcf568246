"""A state that has forgotten tasks: a new attempt is looked up before its request goes out."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from scripted import NO_ANSWER, NOT_FOUND, SAID, Stages, attempt, found, play
from virtual_time import EPOCH

from batch.attempt import RETENTION_S, Doubt, Intended, Open, Unconfirmed
from batch.events import Adopted
from batch.provider.answers import Created, Exists, Unavailable

SETTLE_S = 30.0
DOWN = Unavailable(SAID)


def submit(
    tmp_path: Path, *queries: Any, forgot_at: float | None, **options: Any
) -> tuple[Stages, Any]:
    """Submit an attempt that the provider would take."""

    async def story(stages: Stages) -> tuple[Stages, Any]:
        stages.api.queries = list(queries)
        stages.api.submits = [options.get("answer", Created(found().task))]
        planned = attempt(Intended(EPOCH, options.get("doubt")))
        return stages, await stages.submit(planned)

    limits = {"settle_time_s": SETTLE_S}
    return play(tmp_path, story, forgot_at=forgot_at, proved_at=EPOCH, **limits)


def test_forgotten_task_is_adopted_before_a_request(tmp_path: Path) -> None:
    stages, reached = submit(tmp_path, found(), forgot_at=EPOCH - 60.0)
    assert isinstance(reached.state, Open)
    assert stages.state.attempts["kb-1"] == reached
    assert stages.api.count("submit") == 0
    assert stages.events == [Adopted("a", "8", "kb-1", is_new=False)]


@pytest.mark.parametrize(
    ("forgot_at", "queried_at"), [(EPOCH - 60.0, 0.0), (EPOCH - 10.0, 20.0), (EPOCH + 9e9, 30.0)]
)
def test_absent_task_is_queried_once_after_settling(
    tmp_path: Path, forgot_at: float, queried_at: float
) -> None:
    """A task that was created just before the restore may be invisible; the clock may jump."""
    stages, _ = submit(tmp_path, NOT_FOUND, forgot_at=forgot_at)
    assert stages.api.times("query") == [pytest.approx(queried_at, abs=0.1)]
    assert stages.api.times("submit") == [pytest.approx(queried_at, abs=0.1)]


def test_unanswered_look_up_leaves_it_to_the_providers_refusal(tmp_path: Path) -> None:
    """The request goes out under the id of the forgotten one, and is read as sent before."""
    stages, reached = submit(tmp_path, NO_ANSWER, forgot_at=EPOCH - 60.0, answer=Exists(SAID))
    assert stages.api.count("submit") == 1
    assert isinstance(reached.state, Unconfirmed)
    assert reached.state.doubt.exists


@pytest.mark.parametrize("forgot_at", [None, EPOCH - RETENTION_S - 1.0])
def test_state_that_forgets_nothing_costs_no_query(tmp_path: Path, forgot_at: float | None) -> None:
    """After so long the provider itself has forgotten the tasks."""
    stages, _ = submit(tmp_path, NOT_FOUND, forgot_at=forgot_at)
    assert stages.api.count("query") == 0


def test_attempt_in_doubt_is_looked_up_elsewhere(tmp_path: Path) -> None:
    stages, _ = submit(tmp_path, NOT_FOUND, forgot_at=EPOCH - 60.0, doubt=Doubt(SAID))
    assert (stages.api.count("query"), stages.api.count("submit")) == (0, 1)
