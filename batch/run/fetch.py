"""Fetch: bring the bytes of a generated video here, or leave the task to the next run.

A failure here never leads to a new task (money rule 6). A link that is refused is asked for afresh;
a connection that breaks goes on where it stopped, if the server can prove that it is the same file.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import replace
from typing import Self, TypeVar

from batch import events
from batch.attempt import Attempt, Generated, Landed
from batch.job import Failure, FailureKind
from batch.media.check import MediaError
from batch.output.part import Part
from batch.provider.answers import Found, NotFound, QueryAnswer, TaskStatus, Unavailable
from batch.provider.protocol import (
    BrokenFetchError,
    ExpiredLinkError,
    Stream,
    UselessPartError,
    VideoApi,
)
from batch.run.backoff import backoff
from batch.run.context import RunContext
from batch.run.lookup import GONE_AFTER, LookUp
from batch.waker import sleep

T = TypeVar("T")
TRIES = 6  # in a row without a new byte
TRIES_IN_ALL = 40
LINK_TRIES = 6
OUTAGE_S = 1800.0  # for so long nothing is given up while not even the API can be reached
LONGEST_ASKED_S = 300.0  # of a wait that the file server asks for, and that is no failed try
RETRY_BASE_S = 0.5
RETRY_CAP_S = 20.0
MAX_VIDEO_BYTES = 2 * 1024**3  # no video of some seconds comes near it
SLOWEST_BYTES_S = 1000.0  # less than that over a whole stall time-out is a stall, too
TOLD_EVERY_S = 1.0  # how much has come
FINISH_WITHIN_S = 60.0  # a run that is being left waits so long for downloads under way


class FetchAbandonedError(Exception):
    """The run is being left, and the download has not begun to flow or takes too long."""


class FetchFailedError(Exception):
    """The download has failed for this run.

    *attempt* counts the polls that were made meanwhile; *is_gone*: the provider no longer has it.
    """

    def __init__(self, failure: Failure, attempt: Attempt, *, is_gone: bool = False) -> None:
        super().__init__(failure.message)
        self.failure = failure
        self.attempt = attempt
        self.is_gone = is_gone


class _TrickleError(BrokenFetchError):
    """So few bytes in so long that it is as good as none."""


class Fetcher:
    """Fetches generated videos."""

    def __init__(self, context: RunContext, *, api: VideoApi, lookup: LookUp) -> None:
        self._context = context
        self._api = api
        self._lookup = lookup
        self._left_at: float | None = None  # when a download first saw that the run is being left

    async def fetch(  # noqa: C901 - what each break leads to, in one place
        self,
        attempt: Attempt,
        link: str | None,
        part: Part,
        settle: Callable[[], Awaitable[T]],
    ) -> tuple[Attempt, T]:
        """Fill *part* until *settle* takes it for a whole video.

        Returns:
            The attempt, with its polls counted, and what *settle* returned.

        Raises:
            FetchAbandonedError: the run is being left.
            FetchFailedError: the video cannot be had in this run, or not at all any more.
            OSError: the disk.
        """
        tries, asked_until = 0, self._context.clock.monotonic() + OUTAGE_S
        validator: str | None = None
        failure = _broken("not tried yet")
        for _ in range(TRIES_IN_ALL):
            if link is None:
                attempt, link = await self._ask_for_link(attempt)
            had = part.size
            try:
                resumable = part.size if validator else 0
                async with self._api.fetch(link, start=resumable, validator=validator) as stream:
                    await _align(part, stream, validator)
                    validator = stream.validator
                    with _Meter(self._context, attempt.job_id) as meter:
                        await self._copy(stream, part, meter)
                return attempt, await settle()
            except ExpiredLinkError as error:
                link, failure = None, error.failure
            except UselessPartError as error:
                validator, failure = None, error.failure
            except _TrickleError as error:
                failure, had = error.failure, part.size
            except BrokenFetchError as error:
                failure = error.failure
                if await self._waited(error.retry_after_s, asked_until):
                    continue
            except MediaError as error:
                # Whole by its length and yet no video: start over, with a fresh link.
                failure = Failure(
                    FailureKind.MEDIA, f"what was downloaded is no whole video: {error}"
                )
                link = validator = None
                had = part.size
            tries = 1 if part.size > had else tries + 1
            if tries >= TRIES:
                raise FetchFailedError(failure, attempt)
            if tries == TRIES // 2:
                link = (
                    None  # another host may serve it; without a network, not even this is answered
                )
            wait_s = self._backoff(tries)
            wait_s = wait_s if link else max(wait_s, self._context.limits.poll_interval_s)
            broke = events.DownloadBroke(attempt.job_id, failure, part.size, tries, wait_s)
            self._context.notify(broke)
            await self._wait(wait_s)
        raise FetchFailedError(failure, attempt)

    async def _copy(self, stream: Stream, part: Part, meter: _Meter) -> None:
        """Write the body to the part file, and check that it was all of it."""
        limit = min(MAX_VIDEO_BYTES, stream.total or MAX_VIDEO_BYTES)
        received = measured = part.size
        measured_at = self._context.clock.monotonic()
        async for chunk in stream.chunks():
            received += len(chunk)
            if received > limit:
                break
            await part.write(chunk)
            now = self._context.clock.monotonic()
            meter.add(len(chunk), now)
            if now - measured_at >= self._context.limits.stall_timeout_s:
                if received - measured < SLOWEST_BYTES_S * (now - measured_at):
                    raise _TrickleError(_broken("the file server sends next to nothing"))
                measured, measured_at = received, now
            self._give_up_if_left(now)
        if received > limit:
            await part.restart()
            raise UselessPartError(_broken("the body is longer than announced"))
        if stream.total is not None and part.size < stream.total:
            raise BrokenFetchError(_broken(f"{part.size} of {stream.total} bytes came"))
        if part.size == 0:
            raise BrokenFetchError(_broken("the file server sent an empty file"))

    def _give_up_if_left(self, now: float) -> None:
        """A download under way may finish when the run is being left, but not for ever."""
        if not self._context.stop.leaving.is_set():
            return
        if self._left_at is None:
            self._left_at = now
        if now - self._left_at > FINISH_WITHIN_S:
            raise FetchAbandonedError

    async def _ask_for_link(self, attempt: Attempt) -> tuple[Attempt, str]:
        """Ask the task for a fresh link, no more often than a task may be polled."""
        clock, interval_s = self._context.clock, self._context.limits.poll_interval_s
        task_id = attempt.paid_task.task_id
        if isinstance(attempt.state, Generated):
            since_poll_s = max(clock.now() - attempt.state.generated_at, 0.0)
            if since_poll_s < interval_s:
                await self._wait(interval_s - since_poll_s)
        failure = Failure(FailureKind.DOWNLOAD, "the task has succeeded, but names no video")
        begun = clock.monotonic()
        tries = asked = not_found = 0
        while tries < LINK_TRIES:
            answer = await self._api.query(task_id)
            attempt, asked = attempt.polled(), asked + 1
            is_offline = _is_unreachable(answer) and clock.monotonic() - begun < OUTAGE_S
            tries += not is_offline
            not_found = not_found + 1 if isinstance(answer, NotFound) else 0
            match answer:
                case Found(task) if not await self._lookup.claims.answers(task, attempt):
                    pass
                case Found(task) if task.status is TaskStatus.SUCCEEDED and task.url is not None:
                    return attempt, task.url
                case Found():
                    pass
                case NotFound(gone) if self._lookup.is_gone(
                    # Nothing is given up with a video that has landed once: one answer is enough.
                    attempt,
                    GONE_AFTER if isinstance(attempt.state, Landed) else not_found,
                ):
                    message = "the provider no longer keeps this video (30 days)"
                    gone = replace(gone, kind=FailureKind.DOWNLOAD, message=message)
                    raise FetchFailedError(gone, attempt, is_gone=True)
                case _:
                    failure = replace(answer.failure, kind=FailureKind.DOWNLOAD)
            await self._wait(max(self._backoff(asked), interval_s))
        raise FetchFailedError(failure, attempt)

    async def _waited(self, asked_s: float | None, until: float) -> bool:
        """Wait as long as the file server has asked for; False if it has not, or wants too much.

        What it has asked for in all ends at *until* (monotonic).
        """
        now = self._context.clock.monotonic()
        if asked_s is None or asked_s > min(LONGEST_ASKED_S, until - now):
            return False
        await self._wait(max(asked_s, self._backoff(1)))
        return True

    def _backoff(self, tries: int) -> float:
        return backoff(tries, base_s=RETRY_BASE_S, cap_s=RETRY_CAP_S, rng=self._context.dice)

    async def _wait(self, seconds: float) -> None:
        if await sleep(seconds, self._context.stop.leaving):
            raise FetchAbandonedError


class _Meter:
    """Tells how many bytes have come, about once a second and at the end."""

    def __init__(self, context: RunContext, job_id: str) -> None:
        self._context = context
        self._job_id = job_id
        self._untold = 0
        self._told_at = context.clock.monotonic()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_exc: object) -> None:
        if self._untold:
            self._tell()

    def add(self, size: int, now: float) -> None:
        self._untold += size
        if now - self._told_at >= TOLD_EVERY_S:
            self._tell()
            self._told_at = now

    def _tell(self) -> None:
        untold, self._untold = self._untold, 0
        self._context.notify(events.Downloading(self._job_id, untold))


def _is_unreachable(answer: QueryAnswer) -> bool:
    """Return whether nothing answered at all: no network, as far as can be told from here."""
    return isinstance(answer, Unavailable) and answer.failure.http_status is None


async def _align(part: Part, stream: Stream, validator: str | None) -> None:
    """Make the part end where the body begins."""
    if stream.start == 0:
        await part.restart()
    elif stream.start != part.size or stream.validator != validator:
        raise UselessPartError(_broken("the server continues another file"))


def _broken(text: str) -> Failure:
    return Failure(FailureKind.DOWNLOAD, text)
