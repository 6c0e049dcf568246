"""Settle an unconfirmed job by hand: its task is named, or it was seen that there is none.

A run never does either by itself. What a person says is checked as far as the provider tells: the task
is asked for, and it must not be another attempt's.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable

from batch.attempt import FORGOTTEN_CODE, Account, Attempt, Intended, Open, PaidTask
from batch.errors import BatchError, ExitCode, UsageError
from batch.job import Failure, FailureKind
from batch.library.accounts import IN_DOUBT
from batch.library.ledger import iso
from batch.output.state import Put
from batch.output.store import Store
from batch.plan import Known
from batch.provider.answers import AccountRefused, Found, NotFound, Task
from batch.provider.protocol import VideoApi

FORGOTTEN = "seen not to exist at the provider (kling-batch forget); the next run submits it again"


class NotSettledError(BatchError):
    """The provider does not bear out what was said; nothing was changed."""


class AccountRefusedError(BatchError):
    """The provider refuses the account; nothing was changed."""

    exit_code = ExitCode.ACCOUNT


def unconfirmed(database: Store, job: str) -> Attempt:
    """Return the attempt in doubt that *job* names, by its id or by its external id.

    Raises:
        UsageError: there is none, or more than one; the message says which ids are near.
    """
    known, doubts = list[str](), list[Known]()
    for attempts in database.jobs():
        known.append(attempts[0].job_id)
        doubts += (item for item in attempts if item.phase in IN_DOUBT)
    found = [item for item in doubts if job in {item.job_id, item.external_task_id}]
    if len(found) == 1:
        return database.attempt(found[0].external_task_id)
    if found:
        ids = ", ".join(f"{item.external_task_id} (sent {iso(item.sent_at)})" for item in found)
        raise UsageError(f"job {job!r} has several unconfirmed submissions; name one of {ids}")
    if job in known:
        raise UsageError(f"job {job!r} is not unconfirmed: there is nothing to settle")
    raise UsageError(
        f"there is no job {job!r} in this folder{_near(job, [item.job_id for item in doubts] or known)}"
    )


def check_account(attempt: Attempt, account: Account) -> None:
    """Raise UsageError if *account* cannot know the attempt's task."""
    theirs = attempt.account
    if theirs.base_url != account.base_url:
        raise UsageError(
            f"job {attempt.job_id!r} was submitted to {theirs.base_url}, which alone can tell"
            f" whether its task exists; leave --base-url out"
        )
    if theirs.key_hash not in {"", account.key_hash}:
        raise UsageError(
            f"job {attempt.job_id!r} was submitted with another key than COMETAPI_KEY; its account"
            " alone can tell whether its task exists"
        )


async def adopt(
    database: Store, attempt: Attempt, task_id: str, *, api: VideoApi, account: Account
) -> Attempt:
    """Record that *attempt* has created the task *task_id*; return the attempt, open.

    Raises:
        UsageError: the task is another attempt's, or *account* cannot know it.
        NotSettledError: the provider does not find it, or gives no usable answer.
        AccountRefusedError: the provider refuses the account.
    """
    owner = database.owner_of(task_id)
    if owner is not None and owner != attempt.external_task_id:
        raise UsageError(
            f"task {task_id} is that of job {database.attempt(owner).job_id!r}; nothing was changed"
        )
    task = await _ask(api, task_id)
    if task is None or task.external_task_id is None:
        check_account(
            attempt, account
        )  # an answer that names the external id proves more than this
    if task is None:
        raise NotSettledError(f"the provider finds no task {task_id}; nothing was changed")
    _check_task(attempt, task, task_id)
    paid = PaidTask(task.task_id, task.created_at or attempt.sent_at, task.request_id)
    opened = attempt.to(Open(paid))
    database.write([Put(opened)])
    return opened


async def forget(database: Store, attempt: Attempt, *, api: VideoApi | None, now: float) -> Attempt:
    """Record that *attempt* has created nothing; return it, failed.

    Args:
        database: the state.
        attempt: the attempt in doubt.
        api: is asked once more; None where that is not possible.
        now: the time.

    Raises:
        NotSettledError: the provider has the task after all.
    """
    if api is not None:
        answer = await api.query(attempt.external_task_id)
        if isinstance(answer, Found) and _is_its(attempt, answer.task):
            raise NotSettledError(
                f"the provider finds it, as task {answer.task.task_id}: adopt that one; nothing was"
                " changed"
            )
    failure = Failure(FailureKind.NETWORK, FORGOTTEN, code=FORGOTTEN_CODE)
    forgotten = attempt.to(Intended(now, attempt.doubt)).failed(now, failure)
    database.write([Put(forgotten)])
    return forgotten


async def _ask(api: VideoApi, task_id: str) -> Task | None:
    answer = await api.query(task_id)
    match answer:
        case Found(task):
            return task
        case NotFound():
            return None
        case AccountRefused(failure):
            raise AccountRefusedError(f"the provider refuses the account: {failure.message}")
        case _:
            message = answer.failure.message
            raise NotSettledError(f"the provider did not tell about task {task_id} ({message})")


def _check_task(attempt: Attempt, task: Task, task_id: str) -> None:
    if task.task_id != task_id:
        raise NotSettledError(f"asked for task {task_id}, the provider told about {task.task_id}")
    if not _is_its(attempt, task):
        raise UsageError(
            f"task {task_id} was submitted under the external id {task.external_task_id}, job"
            f" {attempt.job_id!r} under {attempt.external_task_id}: it is another one; nothing was"
            " changed"
        )


def _is_its(attempt: Attempt, task: Task) -> bool:
    """Return whether a task names the attempt's external id, or none."""
    return task.external_task_id in {None, attempt.external_task_id}


def _near(job: str, ids: Iterable[str]) -> str:
    near = difflib.get_close_matches(job, set(ids), n=3)
    return f"; did you mean {' or '.join(map(repr, near))}?" if near else ""
