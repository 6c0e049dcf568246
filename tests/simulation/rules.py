"""The invariants of every night. Each function returns the broken ones as sentences."""

from __future__ import annotations

import itertools
import json
import math
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import purse
from fake_provider import FAILS, FORBIDDEN, INVALID, MODERATED, UNKNOWN, ProviderTask

from batch.attempt import (
    Account,
    Attempt,
    Discarded,
    Failed,
    Intended,
    Landed,
    Lost,
    PaidTask,
    Phase,
    Unconfirmed,
)
from batch.job import FailureKind, Job
from batch.output.row import outcome_of
from batch.output.store import Store
from batch.plan import Plan, Policy, make_plan
from batch.run.planner import PlannedRun
from batch.run.presence import Presence

if TYPE_CHECKING:
    from night import Night, RunPlan

# Known violations: counted, but not reported as new.
KNOWN = {"Ctrl-C twice after a deadline": "told twice to stop, after another reason"}
PRICE_USD = 0.21
SLACK_S = 0.05  # from a turn at the gate to the request: committing the intent
TITLE = b"\0\0\0\x0dfreemine."  # a box that a person adds to a video, which stays whole
OPEN_ENDS = frozenset({"timed_out", "unconfirmed"})
UNKNOWN_FATE = (Intended, Lost, Unconfirmed)


def plan_of(night: Night, database: Store | None) -> Plan:
    """Return the plan of a run started now."""
    known = {} if database is None else database.known()
    return make_plan(
        night.jobs(),
        known,
        policy=Policy(max_attempts=night.limits.max_attempts),
        is_present=Presence(night.root, database, known=known),
        price=lambda _job: (PRICE_USD, True),
        forced={} if database is None else database.forced(),
        now=night.now,
    )


def after_a_run(night: Night, run: RunPlan, *, is_whole: bool) -> list[str]:
    """Check the invariants that also hold after a death."""
    if not night.home.has_state(night.root):
        return ["tasks without a state"] if night.provider.tasks else []
    night.provider.catch_up(night.now + night.limits.settle_time_s)
    with night.home.reading(night.root) as database:
        attempts = {attempt.external_task_id: attempt for attempt in database.attempts()}
        lines = list(database.result_lines())
    broken = _money(night) + _memory(night, attempts)
    if not night.is_fleet:  # who takes a job over does not know when it was looked at last
        broken += _looks(night, run)
    broken += purse.of_the_days(night) + purse.of_the_run(night, run, attempts)
    broken += _files(night, attempts)
    if is_whole:
        broken += _rows(night, lines)
    return broken


def at_the_end(night: Night) -> list[str]:
    """Check that every paid video has landed."""
    with night.home.reading(night.root) as database:
        attempts = list(database.attempts())
        lines = [json.loads(line) for line in database.result_lines()]
    broken: list[str] = []
    current = {job.id: job for job in night.all_jobs()}
    by_prompt: dict[str, list[ProviderTask]] = defaultdict(list)
    for task in night.provider.tasks.values():
        by_prompt[task.prompt].append(task)
    for job in current.values():
        mine = _in_question(job, attempts)
        broken += _outcome(night, job.id, job.body()["prompt"], mine, by_prompt)
    homes = {a.task_id: a for a in attempts if isinstance(a.state, Landed)}
    discarded = {a.task_id for a in attempts if isinstance(a.state, Discarded)}
    for task in night.provider.tasks.values():
        is_home = task.fails is not None or task.task_id in homes or task.task_id in discarded
        is_home |= (
            task.external_task_id in night.forgotten
        )  # and found again only where it is wanted
        if not is_home and not night.resubmitted[task.prompt]:
            broken.append(f"task {task.task_id} ({task.prompt}) was paid for and never landed")
    for attempt in homes.values():
        assert isinstance(attempt.state, Landed)
        if attempt.external_task_id in night.tampered_ids:
            continue
        if _bytes(night.root / attempt.state.file) not in _videos_of(night, attempt):
            broken.append(f"{attempt.external_task_id} is not in {attempt.state.file}")
    return broken + purse.at_the_end(night, attempts) + _last_lines(current, attempts, lines)


def _in_question(job: Job, attempts: list[Attempt]) -> list[Attempt]:
    """Return the attempts for a job's request, the one that is to stand last.

    A person may choose it; and what was discarded, and a failed round of `--force`, leave the video
    before them standing.
    """
    own = [a for a in attempts if a.job_id == job.id]
    same = [a for a in own if a.fingerprint == job.fingerprint]
    pinned = [a for a in own if _pinned_for(a) == job.fingerprint]
    kept = [a for a in same if isinstance(a.state, Landed)]
    is_over = bool(same) and isinstance(same[-1].state, Discarded | Failed)
    return [*same, *(pinned or (kept if is_over else []))]


def _pinned_for(attempt: Attempt) -> str | None:
    pin = attempt.state.pin if isinstance(attempt.state, Landed) else None
    return None if pin is None else pin.fingerprint


def _outcome(
    night: Night,
    job_id: str,
    prompt: str,
    mine: list[Attempt],
    by_prompt: dict[str, list[ProviderTask]],
) -> list[str]:
    if not mine:
        return [f"{job_id} has no attempt at the end"]
    latest, tasks = mine[-1], by_prompt[prompt]
    failed = [task for task in tasks if task.fails]
    match latest.state:
        case Landed(file=file, task=PaidTask(task_id)):
            there = _bytes(night.root / f"videos/{job_id}.mp4") or b""
            there = there.split(TITLE)[0]  # what a person has added stays
            if there not in _videos_of(night, latest):
                return [f"{job_id}: videos/{job_id}.mp4 is not the video of {task_id}"]
            if night.provider.tasks[task_id].prompt != latest.body()["prompt"]:
                return [f"{job_id}: the video in {file} is of another prompt"]
            extra = night.forced[prompt] + night.resubmitted[prompt] + night.discarded[prompt]
            if len(tasks) > len(failed) + 1 + extra:
                return [f"{job_id}: {len(tasks)} tasks, {len(failed)} of them failed"]
        case Failed(failure=failure):
            reasons = {
                INVALID: FailureKind.INVALID_REQUEST,
                FORBIDDEN: FailureKind.MODERATION,
                MODERATED: FailureKind.MODERATION,
                **dict.fromkeys((FAILS, UNKNOWN), FailureKind.GENERATION),
            }
            if not any(mark in prompt and failure.kind is kind for mark, kind in reasons.items()):
                return [f"{job_id} failed without the provider's doing: {failure}"]
            most = min(night.limits.max_attempts, 2 if UNKNOWN in prompt else math.inf)
            if failure.kind is FailureKind.GENERATION and len(failed) < most:
                return [f"{job_id} rests after {len(failed)} failures"]
        case Unconfirmed() if night.is_beyond_proof(prompt):
            return []
        case state:
            return [f"{job_id} ends as {type(state).__name__}"]
    return []


def _videos_of(night: Night, attempt: Attempt) -> set[bytes]:
    """Return the video of an attempt's task; of all its tasks, where a person has paid for two.

    They are of one request, and have its external id: which of them an answer means, nobody can tell.
    """
    name, tasks = attempt.external_task_id, night.provider.tasks
    if name not in night.provider.duplicates_paid:
        return {tasks[str(attempt.task_id)].content}
    return {
        task.content for task in tasks.values() if task.external_task_id == name and not task.fails
    }


def _last_lines(
    current: dict[str, Any], attempts: list[Attempt], lines: list[dict[str, Any]]
) -> list[str]:
    """The last line of a job is its state, except for superseded attempts."""
    broken = []
    settled = _settled_unlisted(attempts, lines)
    told = (row for row in lines if not _is_superseded(row) and not settled(row))
    # Of the wanted version: going back to an earlier one leaves it unchanged and writes no line.
    last = {(row["job_id"], row["fingerprint"]): row for row in told}
    for job_id, job in current.items():
        mine = _in_question(job, attempts)
        row = last.get((job_id, mine[-1].fingerprint if mine else job.fingerprint))
        if mine and isinstance(mine[-1].state, Failed):
            continue  # an earlier version is wanted again and rests: no line
        if row is None:
            broken.append(f"{job_id} has no line")
        elif mine and row["status"] not in {outcome_of(mine[-1]), _of_a_round(job, attempts)}:
            broken.append(f"{job_id}: its last line says {row['status']}")
    return broken


def _settled_unlisted(
    attempts: list[Attempt], lines: list[dict[str, Any]]
) -> Callable[[dict[str, Any]], bool]:
    """Return whether a line tells of a doubt that was settled while no manifest at hand had the job.

    Of a video that came then a line says that it is a former version; of a request that was never sent
    none says anything: what stands for the job is what stood before.
    """
    known = {attempt.external_task_id for attempt in attempts}
    former = {row["external_task_id"] for row in lines if _is_superseded(row)}

    def is_settled(row: dict[str, Any]) -> bool:
        name = row["external_task_id"]
        return row["status"] in OPEN_ENDS and (name in former or name not in known)

    return is_settled


def _of_a_round(job: Job, attempts: list[Attempt]) -> str | None:
    """Return the outcome of a failed round of `--force`, which is told although the video stands."""
    same = [a for a in attempts if (a.job_id, a.fingerprint) == (job.id, job.fingerprint)]
    return outcome_of(same[-1]) if same and isinstance(same[-1].state, Failed) else None


def _is_superseded(row: dict[str, Any]) -> bool:
    return any(warning.startswith("superseded") for warning in row["warnings"])


# -- money


def _money(night: Night) -> list[str]:
    """A task is paid for only where every earlier one of this prompt had failed."""
    broken = []
    by_prompt: dict[str, list[ProviderTask]] = defaultdict(list)
    for task in night.provider.tasks.values():
        by_prompt[task.prompt].append(task)
    for prompt, tasks in by_prompt.items():
        extra = sum(
            any(not earlier.fails or earlier.ends > task.created for earlier in tasks[:i])
            for i, task in enumerate(tasks)
        )
        allowed = night.forced[prompt] + night.resubmitted[prompt] + night.discarded[prompt]
        if extra > allowed:
            ids = [task.task_id for task in tasks]
            broken.append(f"{prompt!r} was paid for {len(tasks)} times: {ids}")
        in_a_row = longest = 0
        for task in tasks:
            in_a_row = in_a_row + 1 if task.fails else 0
            longest = max(longest, in_a_row)
        if longest > night.limits.max_attempts + night.resubmitted[prompt]:
            broken.append(f"{prompt!r}: {longest} failures in a row")
        asked_for = night.retried[prompt] + night.resubmitted[prompt] + extra
        if MODERATED in prompt and len(tasks) > 1 + asked_for:
            broken.append(f"{prompt!r} was tried {len(tasks)} times in spite of moderation")
        if UNKNOWN in prompt:
            broken += _unexplained(night, prompt, len(tasks) - asked_for)
    return broken


def _unexplained(night: Night, prompt: str, tried: int) -> list[str]:
    """An unknown failure is retried once, in a later run."""
    posts = [post for post in night.provider.posts if post.prompt == prompt and post.task_id]
    if len({post.run for post in posts}) < len(posts):
        return [f"{prompt!r} was tried twice in one run, in spite of unknown words"]
    return [f"{prompt!r} was tried {tried} times"] if tried > 2 else []


def _memory(night: Night, attempts: dict[str, Attempt]) -> list[str]:
    """No task is forgotten."""
    broken = []
    for external_task_id, task in night.provider.by_external.items():
        attempt = attempts.get(external_task_id)
        if external_task_id in night.forgotten and (attempt is None or attempt.task_id is None):
            continue
        if attempt is None:
            broken.append(f"{external_task_id} ({task.prompt}) is forgotten, and was paid for")
        elif attempt.task_id not in {task.task_id, None}:
            if external_task_id not in night.provider.duplicates_paid:
                broken.append(f"{external_task_id} holds {attempt.task_id}, not {task.task_id}")
        elif attempt.task_id is None and not isinstance(attempt.state, UNKNOWN_FATE):
            broken.append(
                f"{external_task_id} is {type(attempt.state).__name__}, but {task.task_id} exists"
            )
    return broken


def at_a_post(night: Night, reader: Store, now: float, account: Account | None = None) -> list[str]:
    """No more tasks are open than max_in_flight, as far as the run can know: of all, or an account."""
    known = {
        item.external_task_id
        for items in reader.known().values()
        for item in items
        if item.phase is Phase.OPEN
    }
    young = [
        task
        for task in night.provider.tasks.values()
        if task.ends > now and now - task.created < night.limits.task_timeout_s
    ]
    names = known & {task.external_task_id for task in young}
    in_flight = sum(account in {None, reader.attempt(name).account} for name in names)
    if in_flight >= night.limits.max_in_flight:
        return [f"a request goes out while {in_flight} tasks are open at {now:.3f}"]
    return []


def of_the_pace(night: Night, calls: list[float], napped: list[float]) -> list[str]:
    """No window of time has more submissions than the rate allows."""
    rate = night.limits.submit_rate
    count = max(1, int(rate.count))
    window = count / rate.per_second - SLACK_S
    for first, last in zip(calls, calls[count:], strict=False):
        if last - first < window and not any(first <= nap <= last for nap in napped):
            return [f"{count + 1} submissions within {last - first:.3f} s at {first:.3f}"]
    return []


def of_the_budget(night: Night, run: RunPlan, planned: PlannedRun) -> list[str]:
    """A run stays within its budget, and at a wrong address within a few requests."""
    budget, slots = planned.settings.limits.budget_usd, night.limits.max_in_flight
    sent = [post for post in night.provider.posts if post.run == run.number]
    made = sum(post.task_id is not None for post in sent)
    if budget is not None and made * PRICE_USD > budget + 1e-6:
        return [f"{made} tasks for {made * PRICE_USD:.2f} with a budget of {budget}"]
    if run.page is not None and len(sent) > slots + 3:
        return [f"{len(sent)} requests at a wrong address with {slots} slots"]
    return []


def _looks(night: Night, run: RunPlan) -> list[str]:
    """A task is polled at most once per poll_interval, and once more after a callback.

    Look-ups after lost answers are no polls, even for a task that a callback has named.
    """
    interval_s = night.limits.poll_interval_s - 1e-6
    broken = []
    for identifier, looks in night.provider.looks.items():
        if not identifier.isdigit() or identifier in night.provider.misnamed:
            continue
        task = night.provider.tasks[identifier]
        by_name = night.provider.looks.get(task.external_task_id, [])
        is_looked_for = task.created >= run.begins or any(n == run.number for n, _ in by_name)
        since = night.opened.get((run.number, identifier), math.inf if is_looked_for else 0.0)
        times = [at for number, at in looks if number == run.number and at >= since]
        calls = night.provider.called_back[identifier]
        for i, (before, after) in enumerate(itertools.pairwise(times)):
            was_called = any(before - interval_s < at <= after for at in calls)
            is_first = i == 0 or after - times[i - 1] >= interval_s
            if after - before < interval_s and not (was_called and is_first):
                said = identifier in night.provider.said_success
                what = "asked for its link" if said else "polled"
                broken.append(f"{identifier} is {what} after {after - before:.3f} s")
                break
    return broken


# -- disk


def _files(night: Night, attempts: dict[str, Attempt]) -> list[str]:
    """A file at a final name is whole and its job's own; landed files are present."""
    broken = []
    contents = {task.content: task for task in night.provider.tasks.values() if task.content}
    owners = {a.state.file: a for a in attempts.values() if isinstance(a.state, Landed)}
    # One of these may have been moved since, or be on its way: a death has left it a second name.
    edited = [night.root / f for f, a in owners.items() if a.external_task_id in night.tampered_ids]
    for file in sorted(night.root.glob("videos/**/*.mp4")):
        name = str(file.relative_to(night.root))
        task = contents.get(file.read_bytes().split(TITLE)[0])
        if task is None:
            is_known = any(other.exists() and file.samefile(other) for other in edited)
            if name not in night.tampered and not is_known:
                broken.append(f"{name} is no whole video")
        elif _is_swapped(night, owners.get(name), task):
            broken.append(f"{name} is the video of {task.prompt!r}")
        else:
            night.tampered.discard(name)
    for attempt in attempts.values():
        is_excused = attempt.external_task_id in night.tampered_ids
        if not isinstance(attempt.state, Landed) or is_excused:
            continue
        if _size(night.root / attempt.state.file) != attempt.state.bytes:
            broken.append(f"{attempt.external_task_id} has landed, {attempt.state.file} has not")
    return broken


def _is_swapped(night: Night, owner: Attempt | None, task: ProviderTask) -> bool:
    """Return whether a file holds the video of another request than the state says.

    A disk that was away brings its files back as they were.
    """
    if owner is None or owner.external_task_id in night.tampered_ids:
        return False
    return bool(owner.body()["prompt"] != task.prompt)


def _rows(night: Night, lines: list[str]) -> list[str]:
    """results.jsonl holds the rows of the state, in their order."""
    path = night.root / "results.jsonl"
    written = path.read_text().splitlines() if path.exists() else []
    list(map(json.loads, written))  # raises where a line is torn
    if written != lines:
        return [f"results.jsonl has {len(written)} lines, the state {len(lines)}"]
    return []


def _size(path: Path) -> int | None:
    try:
        return path.stat().st_size
    except OSError:
        return None


def _bytes(path: Path) -> bytes | None:
    try:
        return path.read_bytes()
    except OSError:
        return None
