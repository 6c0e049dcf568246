"""Resume: a run that dies at any step of a submission leads to no second payment."""

from __future__ import annotations

import asyncio
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from sample_jobs import VIDEO, feed, job, planned, tried
from scripted import BEGUN, NOT_FOUND, SAID, Body, Stages, attempt, found, generated, landed, play
from virtual_time import EPOCH

from batch.attempt import (
    Attempt,
    Doubt,
    Intended,
    Lost,
    PaidTask,
    Phase,
    Pin,
    TimedOut,
    Unconfirmed,
)
from batch.callbacks.hints import Hint
from batch.errors import ExitCode
from batch.events import Adopted, Event, Resumed
from batch.job import Failure, FailureKind
from batch.output.state import Change, Put
from batch.plan import Action, Policy
from batch.provider.answers import (
    AccountRefused,
    Ambiguous,
    Created,
    Exists,
    Found,
    Refused,
    Saturated,
    Task,
    TaskStatus,
    Throttled,
)
from batch.run.gate import ARRIVES_WITHIN_S, SEND_WITHIN_S, still_on_its_way
from batch.run.job_run import JobRun

ON_REQUEST = Policy(resubmit_unconfirmed=True)
REFUSED = Refused(Failure(FailureKind.MODERATION, "not that", "1301", 400))
NO_CREDIT = AccountRefused(Failure(FailureKind.ACCOUNT, "no credit", "1102", 429))
FIREWALL = AccountRefused(Failure(FailureKind.ACCOUNT, "no", http_status=403))


class Nights:
    """Runs one after another over one state; look-up finds nothing, and is proved but for a first."""

    def __init__(self, root: Path, state: Any) -> None:
        self.root = root
        self.known = {"kb-0": tried(state, job())}

    def run(self, *answers: Any, policy: Policy | None = None, is_first: bool = False) -> Stages:
        """Run once; each submission is answered by the next of *answers*, or kills the run."""

        async def story(stages: Stages) -> Stages:
            stages.state.attempts = dict(self.known)
            stages.api.submits, stages.api.queries = list(answers), [NOT_FOUND]
            if not answers:
                stages.api.on_submit = _die
            await feed(stages, job())
            self.known = stages.state.attempts
            return stages

        proved_at = None if is_first else EPOCH
        return play(self.root, story, proved_at=proved_at, policy=policy, task_timeout_s=60.0)

    @property
    def attempt(self) -> Attempt:
        (only,) = self.known.values()
        return only


async def _die() -> None:
    raise asyncio.CancelledError


def told(stages: Stages) -> tuple[str, str]:
    """Return status and reason of the only row of a run."""
    (line,) = stages.state.rows
    row = json.loads(line)
    return row["status"], row["error"]["message"]


@pytest.mark.parametrize("exists", [True, False])
def test_a_doubt_outlives_a_death_before_the_post(tmp_path: Path, exists: bool) -> None:
    """Resubmitted on request by a run that dies: the next one, not asked to, sends nothing."""
    nights = Nights(tmp_path, Unconfirmed(1.0, Doubt(SAID, exists)))
    nights.run(policy=ON_REQUEST, is_first=True)
    assert isinstance(nights.attempt.state, Intended)
    assert nights.attempt.doubt is not None
    assert (nights.attempt.doubt.exists, nights.attempt.doubt.on_request) == (exists, True)

    for _ in range(2):
        stages = nights.run(REFUSED)
        assert stages.api.count("submit") == 0
        assert isinstance(nights.attempt.state, Unconfirmed)
        status, reason = told(stages)
        assert status == "unconfirmed"
        expected = "says that the task exists" if exists else "submitted again on request"
        assert expected in reason


@pytest.mark.parametrize("exists", [True, False])
@pytest.mark.parametrize("dies", [True, False])
def test_a_refusal_settles_no_doubt(tmp_path: Path, exists: bool, dies: bool) -> None:
    """What is refused now may have been accepted then: nothing that a later run pays for again."""
    nights = Nights(tmp_path, Unconfirmed(1.0, Doubt(SAID, exists)))
    if dies:
        nights.run(policy=ON_REQUEST, is_first=True)
    stages = nights.run(REFUSED, policy=ON_REQUEST, is_first=not dies)
    assert stages.api.count("submit") == 1
    assert isinstance(nights.attempt.state, Unconfirmed)
    status, reason = told(stages)
    assert status == "unconfirmed"
    assert reason.startswith("sent again, it was refused (not that); ")
    assert nights.run(REFUSED).api.count("submit") == 0


@pytest.mark.parametrize(
    "answer",
    [Throttled(SAID), Saturated(SAID), Exists(SAID), Ambiguous(SAID), NO_CREDIT, FIREWALL],
    ids=["429", "1303", "exists", "lost", "no credit", "a firewall"],
)
@pytest.mark.parametrize("exists", [True, False])
def test_no_answer_settles_a_doubt(tmp_path: Path, answer: Any, exists: bool) -> None:
    nights = Nights(tmp_path, Unconfirmed(1.0, Doubt(SAID, exists)))
    nights.run(answer, policy=ON_REQUEST, is_first=True)
    assert isinstance(nights.attempt.state, Lost | Unconfirmed)
    assert nights.attempt.doubt is not None
    assert nights.attempt.doubt.on_request
    assert nights.attempt.doubt.exists is (exists or isinstance(answer, Exists))
    stages = nights.run(REFUSED)
    assert stages.api.count("submit") == 0
    assert isinstance(nights.attempt.state, Unconfirmed)


@pytest.mark.parametrize(("sent", "expected"), [(frozenset({"kb-0"}), 0), (frozenset(), 1)])
def test_doubt_is_resubmitted_once_a_run(
    tmp_path: Path, sent: frozenset[str], expected: int
) -> None:
    """A worker dies over a job that it has submitted: what the next one finds was asked for before."""

    async def story(stages: Stages) -> int:
        await stages.state.commit(Put(tried(Unconfirmed(1.0, Doubt(SAID)), job())))
        stages.api.submits, stages.api.queries = [REFUSED], [NOT_FOUND]
        (decision,) = (await planned(stages, [job()])).decisions
        await JobRun(stages.run, 0, decision, sent=sent).live()
        return stages.api.count("submit")

    assert play(tmp_path, story, policy=ON_REQUEST) == expected


# -- what an earlier run has left


DONE = Found(Task("8", TaskStatus.SUCCEEDED, "https://cdn/8"))


@pytest.mark.parametrize(
    "state", [Lost(EPOCH, Doubt(SAID)), Intended(EPOCH), Unconfirmed(EPOCH, Doubt(SAID))]
)
def test_a_task_of_an_earlier_run_is_adopted(tmp_path: Path, state: Any) -> None:
    """The person who watches the run sees where the paid task came from."""

    async def story(stages: Stages) -> list[Event]:
        await stages.state.commit(Put(tried(state, job())))
        stages.api.queries = [found(), DONE]
        stages.api.fetches = [Body([VIDEO], total=len(VIDEO))]
        await feed(stages, job())
        return [event for event in stages.events if isinstance(event, Adopted | Resumed)]

    phase = Phase(type(state).__name__)
    assert play(tmp_path, story) == [
        Resumed("a", phase, None),
        Adopted("a", "8", "kb-0", is_new=False),
    ]


@pytest.mark.parametrize(("age_s", "waited_s"), [(0.0, ARRIVES_WITHIN_S), (1000.0, 0.5)])
@pytest.mark.parametrize("phase", [Phase.INTENDED, Phase.LOST])
def test_a_young_intent_is_not_soon_absent(
    tmp_path: Path, phase: Phase, age_s: float, waited_s: float
) -> None:
    """The run that intended it may be asleep, not dead; then it is sent again, as it is absent."""
    since = EPOCH - age_s
    state = Intended(since) if phase is Phase.INTENDED else Lost(since, Doubt(SAID))

    async def story(stages: Stages) -> list[float]:
        await stages.state.commit(Put(tried(state, job())))
        stages.api.queries, stages.api.submits = [NOT_FOUND], [Refused(SAID)]
        await feed(stages, job())
        return stages.api.times("submit")

    (sent_at,) = play(tmp_path, story, proved_at=EPOCH, settle_time_s=0.5)
    assert sent_at == pytest.approx(waited_s, abs=0.2)


@pytest.mark.parametrize(
    "doubtful", [Intended(1.0), Lost(1.0, Doubt(SAID)), Unconfirmed(1.0, Doubt(SAID))]
)
def test_absent_task_of_a_round_is_left_to_force(tmp_path: Path, doubtful: Any) -> None:
    """A run of --force died in its request. The video that it was to replace stands."""
    made = tried(landed("8", "videos/a.mp4", len(VIDEO)), job())

    def run(policy: Policy) -> list[Any]:
        async def story(stages: Stages) -> list[Any]:
            (tmp_path / "videos").mkdir(exist_ok=True)
            (tmp_path / "videos/a.mp4").write_bytes(VIDEO)
            again = tried(doubtful, job(), "kb-1", 2)
            stages.state.attempts = {"kb-0": made, "kb-1": again}
            stages.api.queries, stages.api.submits = [NOT_FOUND], [REFUSED]
            plan = await feed(stages, job())
            (then,) = (await planned(stages, [job()])).counts
            exit_code = stages.counts.exit_code(plan, stages.stop)
            told = [json.loads(line)["status"] for line in stages.state.rows]
            return [stages.api.count("submit"), exit_code, list(stages.state.attempts), then, told]

        return play(tmp_path, story, proved_at=EPOCH, policy=policy)

    assert run(Policy()) == [0, ExitCode.OK, ["kb-0"], Action.UNCHANGED, ["succeeded"]]
    assert run(Policy(force=True))[0] == 1


NO_ROOM = Failure(FailureKind.DISK, "no space left for the video")
GONE = Found(Task("9", TaskStatus.FAILED, message="moderated"))
ENDS = {
    "landed": (
        replace(generated("9"), trouble=NO_ROOM),
        [Found(Task("9", TaskStatus.SUCCEEDED, "https://cdn/9"))],
    ),
    "failed": (TimedOut(PaidTask("9", BEGUN), EPOCH), [GONE]),
    "absent": (Unconfirmed(1.0, Doubt(SAID)), [NOT_FOUND]),
}


IN_DOUBT = (Unconfirmed(1.0, Doubt(SAID, on_request=True)), [NOT_FOUND])


@pytest.mark.parametrize("end", [*ENDS, "in doubt"])
def test_end_of_a_round_tells_the_pinned_video(tmp_path: Path, end: str) -> None:
    """The line of the run with --force told its trouble; the version that was restored stands.

    So it does while the round is in doubt, which only a person or another key may end.
    """
    left, answers = ENDS.get(end, IN_DOUBT)
    dog = job(prompt="a dog")
    pinned = replace(
        landed("8", "videos/a.mp4", len(VIDEO)), pin=Pin(job().fingerprint, version_at=3.0)
    )

    async def story(stages: Stages) -> list[tuple[Any, ...]]:
        (tmp_path / "videos").mkdir()
        (tmp_path / "videos/a.mp4").write_bytes(VIDEO)
        again = tried(left, job(), "kb-1", 2)
        stages.state.attempts = {"kb-0": tried(pinned, dog), "kb-1": again}
        stages.api.queries, stages.api.fetches = list(answers), [Body([VIDEO], total=len(VIDEO))]
        plan = await feed(stages, job())
        assert stages.counts.exit_code(plan, stages.stop) is ExitCode.OK
        assert stages.api.count("submit") == 0
        rows = map(json.loads, stages.state.rows)
        return [(row["status"], row["external_task_id"], row["file"], row["paid"]) for row in rows]

    stands = ("succeeded", "kb-0", "videos/a.mp4", False)
    assert play(tmp_path, story, proved_at=EPOCH) == [stands]


@pytest.mark.parametrize("end", ["failed", "absent"])
def test_end_of_an_unlisted_round_tells_the_video(tmp_path: Path, end: str) -> None:
    """Its job is in another manifest, whose runs do not settle it."""
    left, answers = ENDS[end]

    async def story(stages: Stages) -> list[tuple[Any, ...]]:
        made, again = landed("8", "videos/a.mp4", len(VIDEO)), tried(left, job(), "kb-1", 2)
        stages.state.attempts = {"kb-0": tried(made, job()), "kb-1": again}
        stages.api.queries = list(answers)
        await feed(stages)
        assert stages.api.count("submit") == 0
        rows = map(json.loads, stages.state.rows)
        return [(row["job_id"], row["status"], row["external_task_id"]) for row in rows]

    assert play(tmp_path, story, proved_at=EPOCH) == [("a", "succeeded", "kb-0")]


def test_an_unexplained_failure_is_retried_once(tmp_path: Path) -> None:
    """Not in the run that saw it; once in a later one; and then it rests."""
    known: dict[str, Attempt] = {}

    async def run(stages: Stages) -> tuple[int, ExitCode, Action]:
        stages.state.attempts.update(known)
        number = len(known)
        stages.api.submits = [Created(Task(f"8{number}", TaskStatus.SUBMITTED))]
        failed = Task(f"8{number}", TaskStatus.FAILED, message="model declined")
        stages.api.queries = [Found(failed)]
        plan = await feed(stages, job())
        for one in stages.state.attempts.values():
            name = f"kb-{one.number}"
            known[name] = replace(one, external_task_id=name)
        (action,) = plan.counts
        return stages.api.count("submit"), stages.counts.exit_code(plan, stages.stop), action

    runs = [play(tmp_path, run, proved_at=EPOCH) for _ in range(3)]
    assert runs == [
        (1, ExitCode.JOBS_FAILED, Action.NEW),
        (1, ExitCode.JOBS_FAILED, Action.RETRY),
        (0, ExitCode.JOBS_FAILED, Action.RESTING),
    ]


@pytest.mark.parametrize(
    ("age_s", "share"), [(0.0, 1.0), (ARRIVES_WITHIN_S / 4, 0.75), (9e9, 0.0), (-50.0, 1.0)]
)
def test_a_request_is_on_its_way_for_seconds(age_s: float, share: float) -> None:
    """A clock that was set back makes it no longer."""
    assert still_on_its_way(100.0, 100.0 + age_s) == pytest.approx(share * ARRIVES_WITHIN_S)
    assert ARRIVES_WITHIN_S > SEND_WITHIN_S


# -- a death at a commit


class Provider:
    """Makes a task of every request, and loses its first answer."""

    def __init__(self) -> None:
        self.tasks: list[str] = []

    async def submit(self, body: dict[str, Any], **_how: Any) -> Any:
        self.tasks.append(body["external_task_id"])
        task = Task(f"8{len(self.tasks)}", TaskStatus.SUBMITTED)
        return Ambiguous(SAID) if len(self.tasks) == 1 else Created(task)

    async def query(self, identifier: str) -> Any:
        if identifier in {*self.tasks, "81"} and self.tasks:
            message = "risk control"
            return Found(Task("81", TaskStatus.FAILED, message=message, external_task_id="kb-100"))
        return NOT_FOUND


@pytest.mark.parametrize("lands", [True, False], ids=["after it", "before it"])
@pytest.mark.parametrize(("fatal", "sent"), [("Intended", 0), ("Lost", 1), ("Open", 1)])
def test_a_death_at_a_commit_sends_nothing_twice(
    tmp_path: Path, fatal: str, sent: int, lands: bool
) -> None:
    """The run dies right before or right after that the state is on disk."""
    provider = Provider()

    async def dies(stages: Stages) -> dict[str, Attempt]:
        commit = stages.state.commit

        async def mortal(*changes: Change) -> None:
            match changes:
                case (Put(attempt), *_) if attempt.phase == fatal:
                    if lands:
                        await commit(*changes)
                    raise asyncio.CancelledError
            await commit(*changes)

        stages.state.commit = mortal  # type: ignore[method-assign]
        stages.api = provider  # type: ignore[assignment]
        await stages.wire()
        await feed(stages, job())
        return stages.state.attempts

    async def next_run(stages: Stages) -> list[str]:
        stages.state.attempts = dict(left)
        stages.api = provider  # type: ignore[assignment]
        await stages.wire()
        await feed(stages, job())
        return [attempt.phase.value for attempt in stages.state.attempts.values()]

    left = play(tmp_path, dies, proved_at=EPOCH)
    assert len(provider.tasks) == sent
    assert play(tmp_path, next_run, proved_at=EPOCH) == ["Failed"]
    assert provider.tasks == ["kb-100"]


@pytest.mark.parametrize("is_gate", [True, False], ids=["Ticket.intend", "LookUp.lose"])
def test_a_cancelled_commit_goes_no_further(tmp_path: Path, is_gate: bool) -> None:
    """A commit reaches the disk though it is cancelled; after it nothing is sent or looked up."""

    async def story(stages: Stages) -> tuple[str | None, int]:
        commit = stages.state.commit

        async def shielded(*changes: Change) -> None:
            await asyncio.shield(asyncio.ensure_future(_slowly(commit, changes)))

        stages.state.commit = shielded  # type: ignore[method-assign]
        stages.api.submits, stages.api.queries = (
            [Created(Task("8", TaskStatus.SUBMITTED))],
            [NOT_FOUND],
        )
        if is_gate:
            step = asyncio.ensure_future(stages.submit(attempt()))
        else:
            step = asyncio.ensure_future(_lose_and_find(stages))
        await asyncio.sleep(0.5)
        step.cancel()
        await asyncio.gather(step, return_exceptions=True)
        await asyncio.sleep(5.0)
        return stages.phase_of(), len(stages.api.calls)

    assert play(tmp_path, story) == ("Intended" if is_gate else "Lost", 0)


async def _slowly(commit: Any, changes: tuple[Change, ...]) -> None:
    await asyncio.sleep(1.0)
    await commit(*changes)


async def _lose_and_find(stages: Stages) -> Attempt:
    lost = await stages.run.lookup.lose(attempt(), SAID)
    return await stages.run.lookup.find(lost, Hint())
