"""The account book: a small file through which the runs of one account share its limits.

It lies in the user's state folder, one for each base URL and key, and holds limits only: no jobs, no
money, no key. Every entry belongs to a run and is known by a lock: it counts for nothing from the
moment in which its process is gone, though tasks of that process may still be open. What the provider
then refuses teaches the slots, as it does after any kill.
"""

from __future__ import annotations

import hashlib
import json
import os
import platform
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Self, TypeVar

from batch.attempt import Account
from batch.clock import Clock
from batch.manifest.limits import Limits
from batch.output.lock import try_lock, unlock
from batch.run.account import LATE_S, SPREAD, due_now, late_of_many
from batch.run.share import Alone

T = TypeVar("T")

WAITS_S = 0.5  # a run that has not asked again for so long does not wait any more
PATIENCE_S = 0.25  # for the lock, which is held for some microseconds
RETRY_S = 0.0002
MAX_BYTES = 1 << 15  # some 300 runs; a larger buffer takes longer to get than the rest of a call


@dataclass(slots=True)
class Entry:
    """A run in the book: its limits, its slots, and since when it waits for one more."""

    ceiling: int
    interval_s: float
    held: int = 0
    waits_since: float | None = None
    asked_at: float = 0.0

    def values(self) -> tuple[float | None, ...]:
        """Return what the book keeps of it, in the order of the fields."""
        return self.ceiling, self.interval_s, self.held, self.waits_since, self.asked_at


@dataclass(slots=True)
class Page:
    """What the book says, and the rules by which runs share."""

    due: float = 0.0
    paused_until: float = 0.0
    entries: dict[str, Entry] = field(default_factory=dict)

    def take(self, mine: Entry, now: float) -> bool:
        """Give a slot to a run, unless another waits that holds fewer, or has waited longer."""
        entries = self.entries.values()
        has_room = sum(entry.held for entry in entries) < max(entry.ceiling for entry in entries)
        since = now if mine.waits_since is None else mine.waits_since
        is_next = not any(
            (entry.held, entry.waits_since) < (mine.held, since)
            for entry in entries
            if entry.waits_since is not None and now - entry.asked_at < WAITS_S
        )
        is_mine = has_room and is_next
        mine.held += is_mine
        mine.waits_since = None if is_mine else since
        mine.asked_at = now
        return is_mine

    def turn(self, now: float) -> float:
        """Give the next turn, at the rate of the fastest run; return when it is due."""
        entries = self.entries.values()
        interval_s = min(entry.interval_s for entry in entries)
        late_s = LATE_S
        if len(entries) > 1:
            late_s = late_of_many(interval_s)
            interval_s *= SPREAD
        due = due_now(self.due, now, late_s)
        # No more turns are ahead than there are runs, unless the clock has jumped.
        due = min(due, now + interval_s * len(entries)) if due > self.paused_until else due
        due = max(due, self.paused_until)
        self.due = due + interval_s
        return due


class AccountBook:
    """`Share` through the book of an account. Use as a context manager.

    Args:
        folder: the user's state folder (`batch.paths.state_folder`).
        account: whose limits are shared.
        limits: those of this run.
        clock: gives the time, the same in all processes of the machine.
        warn: told once that the run waits for others, and once that the book cannot be used any
            more; from then on the run shares nothing.
    """

    def __init__(
        self,
        folder: Path,
        account: Account,
        limits: Limits,
        *,
        clock: Clock,
        warn: Callable[[str], None],
    ) -> None:
        # Shared homes are not shared machines: each has its own time since boot.
        whose = json.dumps([account.base_url, account.key_hash, platform.node()]).encode()
        self._path = folder / f"account-{hashlib.sha256(whose).hexdigest()[:16]}"
        self._entry = Entry(limits.max_in_flight, 1.0 / limits.submit_rate.per_second)
        self._clock = clock
        self._warn = warn
        self._has_told = False
        self._name = os.urandom(8).hex()
        self._alone = Alone(clock)
        self._file = self._lock = -1
        self._seen = b"", Page()  # the book as this run has left it, which saves reading it again

    def __enter__(self) -> Self:
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
            self._lock = os.open(self._lock_of(self._name), os.O_RDWR | os.O_CREAT, 0o600)
            if not try_lock(self._lock):
                raise BlockingIOError("its lock is taken")
            self._file = os.open(self._path, os.O_RDWR | os.O_CREAT, 0o600)
        except OSError as error:
            self._give_up(error)
        self._edit(lambda _page: None, None)
        return self

    def __exit__(
        self,
        _kind: type[BaseException] | None,
        _error: BaseException | None,
        _traceback: TracebackType | None,
    ) -> None:
        self._edit(lambda page: page.entries.pop(self._name), None)
        self._close()

    # -- the share

    def take(self, held: int) -> bool:
        def change(page: Page) -> bool:
            self._entry.held = held
            return page.take(self._entry, self._clock.monotonic())

        is_taken = self._edit(change, alone=True)
        if not (is_taken or held or self._has_told):
            self._has_told = True
            self._warn(
                "this run waits: other runs of this account on this machine hold all the slots that"
                " they share (--no-share-account: keep to this run's own limits)"
            )
        return is_taken

    def hold(self, held: int) -> None:
        self._entry.held, self._entry.waits_since = held, None
        self._edit(lambda _page: None, None)

    def turn(self) -> float:
        return self._edit(lambda page: page.turn(self._clock.monotonic()), self._alone.turn())

    @property
    def paused_until(self) -> float:
        return self._edit(lambda page: page.paused_until, self._alone.paused_until)

    def pause(self, until: float) -> None:
        def change(page: Page) -> None:
            page.paused_until = max(page.paused_until, until)

        self._alone.pause(until)
        self._edit(change, None)

    # -- the file

    def _edit(self, change: Callable[[Page], T], alone: T) -> T:
        """Return what *change* returns of the page, and keep the page; *alone* without a book."""
        if self._file < 0:
            return alone
        try:
            _wait_for(self._file)
            try:
                found = self._change(change)
            finally:
                unlock(self._file)
        except OSError as error:
            self._give_up(error)
            return alone
        return found

    def _change(self, change: Callable[[Page], T]) -> T:
        os.lseek(self._file, 0, os.SEEK_SET)
        before = os.read(self._file, MAX_BYTES)
        page = self._page(before)
        found = change(page)
        after = _written(page)
        if after != before:
            os.lseek(self._file, 0, os.SEEK_SET)
            os.write(self._file, after)
            if len(after) < len(before):
                os.ftruncate(self._file, len(after))
        self._seen = after, page
        return found

    def _page(self, data: bytes) -> Page:
        """Return the page with this run in it, and without runs that are gone."""
        seen, page = self._seen
        if data != seen:
            page = _parse(data)
        is_first = self._name not in page.entries
        for name in [name for name in page.entries if name != self._name]:
            if self._is_gone(name):
                del page.entries[name]
        if is_first and not page.entries:  # what is left of former runs may be from before a reboot
            page = Page()
        page.entries[self._name] = self._entry
        return page

    def _lock_of(self, name: str) -> Path:
        return self._path.with_name(f"{self._path.name}.{name}")

    def _is_gone(self, name: str) -> bool:
        """Return whether a run is gone; what is left of its lock is removed."""
        path = self._lock_of(name)
        try:
            descriptor = os.open(path, os.O_RDWR)
        except FileNotFoundError:
            return True
        try:
            is_gone = try_lock(descriptor)
        finally:
            os.close(descriptor)
        if is_gone:
            path.unlink(missing_ok=True)
        return is_gone

    def _give_up(self, error: OSError) -> None:
        self._close()
        self._warn(
            f"limits are not shared with other runs of this account: {self._path} cannot be used"
            f" ({error.strerror or error}); this run keeps to its own"
        )

    def _close(self) -> None:
        for descriptor in (self._file, self._lock):
            if descriptor >= 0:
                os.close(descriptor)
        if self._lock >= 0:
            self._lock_of(self._name).unlink(missing_ok=True)
        self._file = self._lock = -1


def _wait_for(descriptor: int) -> None:
    give_up_at = time.monotonic() + PATIENCE_S
    while not try_lock(descriptor):
        if time.monotonic() > give_up_at:
            raise BlockingIOError("another run holds it locked")
        time.sleep(RETRY_S)


def _written(page: Page) -> bytes:
    entries = {name: entry.values() for name, entry in page.entries.items()}
    return json.dumps([page.due, page.paused_until, entries]).encode()


def _parse(data: bytes) -> Page:
    """Return the page; an empty one if it cannot be read: every run writes its entry again."""
    try:
        due, paused_until, entries = json.loads(data)
        return Page(due, paused_until, {name: Entry(*entry) for name, entry in entries.items()})
    except (ValueError, TypeError, AttributeError):
        return Page()
