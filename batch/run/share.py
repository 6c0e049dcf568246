"""What the runs of one account share on one machine: slots, turns and pauses.

The limits belong to the account: two manifests that are run at once with the same key open no more
tasks, and submit no faster, than one would. Each run still keeps to limits of its own, and learns by
itself what the provider takes. All calls return at once; whoever is refused asks again.
"""

from __future__ import annotations

from typing import Protocol

from batch.clock import Clock


class Share(Protocol):
    """What an account leaves to one of its runs. Moments are monotonic."""

    def take(self, held: int, /) -> bool:
        """Take a slot beside the *held* ones; False if the account has none for this run now."""
        ...

    def hold(self, held: int, /) -> None:
        """Record that this run holds so many slots, whatever the limit says, and waits for none."""
        ...

    def turn(self) -> float:
        """Take the account's next turn for a request, and return when it is due."""
        ...

    @property
    def paused_until(self) -> float:
        """Until when the provider wants no request of the account."""
        ...

    def pause(self, until: float) -> None:
        """Let no request of the account out before *until*; a shorter pause shortens none."""
        ...


class Alone:
    """The share of a run that has its account for itself."""

    def __init__(self, clock: Clock) -> None:
        self._paused_until = clock.monotonic()

    def take(self, _held: int) -> bool:
        return True

    def hold(self, _held: int) -> None:
        return None

    def turn(self) -> float:
        return self._paused_until

    @property
    def paused_until(self) -> float:
        return self._paused_until

    def pause(self, until: float) -> None:
        self._paused_until = max(self._paused_until, until)
