"""Download: bring a generated video to disk, whole, or leave the task to the next run.

A failure here never leads to a new task (money rule 6). A link that is refused is asked for afresh;
a connection that breaks goes on where it stopped, if the server can prove that it is the same file.
"""

from __future__ import annotations

import errno
import random
from collections.abc import Awaitable, Callable
from contextlib import AbstractAsyncContextManager, nullcontext
from dataclasses import replace

from batch import events
from batch.clock import Clock
from batch.events import Event
from batch.job import Attempt, Failed, Failure, FailureKind, Generated, Landed, Video
from batch.media.check import MediaError, compare, inspect, inspect_data
from batch.output.videos import OutputFolder, Part
from batch.provider.answers import Found, NotFound, QueryAnswer, TaskStatus, Unavailable
from batch.provider.protocol import (
    BrokenFetchError,
    ExpiredLinkError,
    Stream,
    UselessPartError,
    VideoApi,
)
from batch.run.backoff import backoff
from batch.run.lookup import LookUp
from batch.run.stop import Stop, StopReason
from batch.waker import sleep

TRIES = 6  # in a row without a new byte
TRIES_IN_ALL = 40
LINK_TRIES = 6
OUTAGE_S = 1800.0  # for so long nothing is given up while not even the API can be reached
RETRY_BASE_S = 0.5
RETRY_CAP_S = 20.0
NO_ROOM = frozenset({errno.ENOSPC, errno.EDQUOT})
MAX_VIDEO_BYTES = 2 * 1024**3  # no video of some seconds comes near it
SLOWEST_BYTES_S = 1000.0  # less than that over a whole stall time-out is a stall, too
FINISH_WITHIN_S = 60.0  # a run that is being left waits so long for downloads under way


class _Abandoned(Exception):  # noqa: N818 - no error: the run is being left
    """The run is being left, and the download has not begun to flow or takes too long."""


class _Failed(Exception):  # noqa: N818 - carries an outcome to the one place that makes it
    """The download has failed for this run."""

    def __init__(self, failure: Failure, attempt: Attempt) -> None:
        super().__init__(failure.message)
        self.failure = failure
        self.attempt = attempt  # with the looks that were made at its task meanwhile


class _TrickleError(BrokenFetchError):
    """So few bytes in so long that it is as good as none."""


class _Gone(_Failed):
    """The provider no longer has the video."""


class Downloader:
    """Fetches generated videos."""

    def __init__(
        self,
        *,
        api: VideoApi,
        folder: OutputFolder,
        lookup: LookUp,
        stop: Stop,
        clock: Clock,
        rng: random.Random,
        stall_timeout_s: float,
        poll_interval_s: float,
        notify: Callable[[Event], None],
    ) -> None:
        self._api = api
        self._folder = folder
        self._lookup = lookup
        self._stop = stop
        self._clock = clock
        self._rng = rng
        self._stall_timeout_s = stall_timeout_s
        self._poll_interval_s = poll_interval_s
        self._notify = notify
        self._left_at: float | None = None  # when a download first saw that the run is being left

    async def download(
        self,
        attempt: Attempt,
        link: str | None,
        *,
        file: str,
        keep_as: str,
        slot: AbstractAsyncContextManager[None] | None = None,
    ) -> Attempt | None:
        """Fetch the video of a *Generated* attempt to *file*.

        Nothing is committed here. The attempt comes back *Landed*, *Generated* with its trouble
        (the next run tries again), *Failed* (the provider no longer has it), or as None when the run
        is being left. A former video at *file* is kept at *keep_as*. *slot* is held while bytes
        flow, and while a video that is not small lands.
        """
        state = attempt.state
        assert isinstance(state, Generated)
        try:
            async with self._folder.part(attempt.external_task_id) as part:

                async def settle() -> Video:
                    if (data := part.in_memory()) is not None:
                        return inspect_data(data)
                    return await self._folder.land(part, file, keep_as=keep_as, check=inspect)

                async with slot or nullcontext():
                    if self._stop.leaving.is_set():
                        return None
                    attempt, video = await self._fetch(attempt, link, part, settle)
                if part.in_memory() is not None:
                    await self._folder.land_small(part, file, keep_as=keep_as)
                landed = Landed(
                    task_id=state.task_id,
                    submitted_at=state.submitted_at,
                    generated_at=state.generated_at,
                    landed_at=self._clock.now(),
                    file=file,
                    bytes=part.size,
                    sha256=part.sha256,
                    video=video,
                    warnings=_warnings(attempt, video),
                    request_id=state.request_id,
                )
                return attempt.to(landed)
        except _Abandoned:
            return None
        except _Gone as gone:
            now = self._clock.now()
            return gone.attempt.to(Failed(gone.failure, now, state.task_id, state.submitted_at))
        except _Failed as failed:
            return failed.attempt.to(replace(state, trouble=failed.failure))
        except OSError as error:
            return attempt.to(replace(state, trouble=self._disk_trouble(error)))

    async def keep(self, file: str, keep_as: str) -> Failure | None:
        """Give the video at *file*, if there is one, a second name; say what was in the way."""
        try:
            await self._folder.keep(file, keep_as)
        except OSError as error:
            return self._disk_trouble(error)
        return None

    async def restore(self, attempt: Attempt, *, file: str, keep_as: str) -> Attempt | None:
        """Bring a former version that is still here, and whole, back to *file* without asking anybody."""
        state = attempt.state
        assert isinstance(state, Landed)
        if not self._folder.is_present(state.file, state.bytes):
            return None
        try:
            async with self._folder.part(attempt.external_task_id) as part:
                await self._folder.run(part.copy_from, self._folder.root / state.file)
                if part.sha256 != state.sha256:
                    return None
                await self._folder.land(part, file, keep_as=keep_as, check=inspect)
        except (OSError, MediaError):
            return None  # it is fetched then, as if it were not here
        return attempt.to(replace(state, file=file, landed_at=self._clock.now()))

    async def _fetch(
        self,
        attempt: Attempt,
        link: str | None,
        part: Part,
        settle: Callable[[], Awaitable[Video]],
    ) -> tuple[Attempt, Video]:
        """Fill *part* until it holds a whole video, as *settle* finds."""
        tries = 0
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
                    await self._copy(stream, part)
                return attempt, await settle()
            except ExpiredLinkError as error:
                link, failure = None, error.failure
            except UselessPartError as error:
                validator, failure = None, error.failure
            except _TrickleError as error:
                failure, had = error.failure, part.size
            except BrokenFetchError as error:
                failure = error.failure
            except MediaError as error:
                # Whole by its length and yet no video: start over, with a fresh link.
                failure = Failure(
                    FailureKind.MEDIA, f"what was downloaded is no whole video: {error}"
                )
                link = validator = None
                had = part.size
            tries = 1 if part.size > had else tries + 1
            if tries >= TRIES:
                raise _Failed(failure, attempt)
            self._notify(events.DownloadBroke(attempt.job_id, failure))
            if tries == TRIES // 2:
                link = None  # another host may serve it; and who cannot even ask has no network
            wait_s = self._backoff(tries)
            await self._wait(wait_s if link else max(wait_s, self._poll_interval_s))
        raise _Failed(failure, attempt)

    async def _copy(self, stream: Stream, part: Part) -> None:
        """Write the body to the part file, and check that it was all of it."""
        limit = min(MAX_VIDEO_BYTES, stream.total or MAX_VIDEO_BYTES)
        received = measured = part.size
        measured_at = self._clock.monotonic()
        async for chunk in stream.chunks():
            received += len(chunk)
            if received > limit:
                break
            await part.write(chunk)
            now = self._clock.monotonic()
            if now - measured_at >= self._stall_timeout_s:
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
        if not self._stop.leaving.is_set():
            return
        if self._left_at is None:
            self._left_at = now
        if now - self._left_at > FINISH_WITHIN_S:
            raise _Abandoned

    async def _ask_for_link(self, attempt: Attempt) -> tuple[Attempt, str]:
        """Ask the task for a fresh link, no more often than a task may be polled."""
        state = attempt.state
        assert isinstance(state, Generated)
        since_poll_s = max(self._clock.now() - state.generated_at, 0.0)
        if since_poll_s < self._poll_interval_s:
            await self._wait(self._poll_interval_s - since_poll_s)
        failure = Failure(FailureKind.DOWNLOAD, "the task has succeeded, but names no video")
        begun = self._clock.monotonic()
        tries = asked = not_found = 0
        while tries < LINK_TRIES:
            answer = await self._api.query(state.task_id)
            attempt, asked = attempt.polled(), asked + 1
            is_offline = _is_unreachable(answer) and self._clock.monotonic() - begun < OUTAGE_S
            tries += not is_offline
            not_found = not_found + 1 if isinstance(answer, NotFound) else 0
            match answer:
                case Found(task) if not attempt.owns(task.task_id, task.external_task_id):
                    pass
                case Found(task) if task.status is TaskStatus.SUCCEEDED and task.url is not None:
                    return attempt, task.url
                case Found():
                    pass
                case NotFound(gone) if self._lookup.is_gone(attempt, state.submitted_at, not_found):
                    raise _Gone(
                        replace(
                            gone,
                            kind=FailureKind.DOWNLOAD,
                            message="the provider no longer keeps this video (30 days)",
                        ),
                        attempt,
                    )
                case _:
                    failure = replace(answer.failure, kind=FailureKind.DOWNLOAD)
            await self._wait(max(self._backoff(asked), self._poll_interval_s))
        raise _Failed(failure, attempt)

    def _disk_trouble(self, error: OSError) -> Failure:
        """Tell what the disk has said; a full one stops the run from paying for more."""
        if error.errno in NO_ROOM:
            sentence = (
                f"the disk takes no more videos ({error.strerror}); nothing more is submitted"
            )
            if self._stop.ask(StopReason.DISK, sentence):
                self._notify(events.Stopping(sentence))
        return Failure(FailureKind.DISK, _disk_sentence(error))

    def _backoff(self, tries: int) -> float:
        return backoff(tries, base_s=RETRY_BASE_S, cap_s=RETRY_CAP_S, rng=self._rng)

    async def _wait(self, seconds: float) -> None:
        if await sleep(seconds, self._stop.leaving):
            raise _Abandoned


def _is_unreachable(answer: QueryAnswer) -> bool:
    """Whether nobody answered at all: no network, as far as one can tell from here."""
    return isinstance(answer, Unavailable) and answer.failure.http_status is None


async def _align(part: Part, stream: Stream, validator: str | None) -> None:
    """Make the part end where the body begins."""
    if stream.start == 0:
        await part.restart()
    elif stream.start != part.size or stream.validator != validator:
        raise UselessPartError(_broken("the server continues another file"))


def _broken(text: str) -> Failure:
    return Failure(FailureKind.DOWNLOAD, text)


def _warnings(attempt: Attempt, video: Video) -> tuple[str, ...]:
    body = attempt.body()
    asked_s = body.get("duration")
    return compare(
        video,
        aspect_ratio=body.get("aspect_ratio"),
        duration=None if asked_s is None else float(asked_s),
    )


def _disk_sentence(error: OSError) -> str:
    what = error.strerror or type(error).__name__
    if error.errno in NO_ROOM:
        return f"no space left for the video ({what}); make room and run again, it is paid for"
    return f"the video cannot be written ({what}); mend that and run again, it is paid for"
