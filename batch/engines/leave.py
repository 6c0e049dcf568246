"""When a worker ends: it is asked to, or gives up since the state cannot be reached."""

from __future__ import annotations

from collections.abc import Callable

from batch import events
from batch.errors import BatchError
from batch.events import Event
from batch.frozen import frozen
from batch.output.fleet import BEAT_S
from batch.waker import Waker, sleep


@frozen
class Times:
    """How long a worker waits for what, in seconds.

    *drain_s* for downloads when it is to end, and then *leave_s* to say so; *unreachable_s* for the state
    before it ends by itself; *refused_s* with the jobs of a run that it is not meant for.
    """

    beat_s: float = BEAT_S
    drain_s: float = 60.0
    leave_s: float = 5.0
    unreachable_s: float = 600.0
    refused_s: float = 10.0


class Leave:
    """Tells when a worker ends, and says why.

    Each sentence is said once, to *notify*.
    """

    def __init__(self, times: Times, notify: Callable[[Event], None]) -> None:
        self.times = times
        self._notify = notify
        self._said: set[str] = set()
        self._asked = Waker()
        self._cut_off = Waker()

    def asked_by(self, asked: Waker) -> None:
        """Have the worker end when *asked* is set."""
        self._asked = asked

    @property
    def is_asked(self) -> bool:
        """Whether the worker was asked to end."""
        return self._asked.is_set()

    @property
    def is_cut_off(self) -> bool:
        """Whether the worker has given up."""
        return self._cut_off.is_set()

    @property
    def is_near(self) -> bool:
        """Whether the worker ends, for either reason."""
        return self.is_asked or self.is_cut_off

    async def within(self, seconds: float, *wakers: Waker) -> bool:
        """Wait *seconds*, or until the worker ends or one of *wakers* is set. True if one was."""
        return await sleep(seconds, self._asked, self._cut_off, *wakers)

    async def cut_off_within(self, seconds: float, *wakers: Waker) -> bool:
        """As `within`, for a worker that was asked to end."""
        return await sleep(seconds, self._cut_off, *wakers)

    def give_up(self, error: BatchError) -> None:
        """End, so that another worker, or a later one, takes over."""
        self.say(f"{error}; this worker ends, to begin anew")
        self._cut_off.set()

    def say(self, sentence: str) -> None:
        """Say something that a person should know."""
        if sentence not in self._said:
            self._said.add(sentence)
            self._notify(events.Warned(sentence))
