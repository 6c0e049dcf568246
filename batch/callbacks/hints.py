"""Hints: what a callback may change (the moment of the next poll), and how far to trust callbacks.

A callback is not signed, may not come, and may come in any order. So it only makes the runner query the
task; only the API's answer counts. The token in each task's URL keeps strangers out, and only its hash
is stored.
"""

from __future__ import annotations

import hashlib
import hmac
import re
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from typing import NamedTuple

from batch.attempt import EXTERNAL_ID_PREFIX
from batch.waker import Waker

STRETCH = 4.0  # how much rarer to poll while callbacks keep coming
# Tasks of which a callback of any kind came; once an end was missed: ends in a row that were announced.
PROVED_BY = 3
KEY_CHARS = 16  # of a hash, to find it by; all of it is then compared in constant time
_TOKEN = re.compile(rf"({EXTERNAL_ID_PREFIX}[0-9a-f]{{32}})-[A-Za-z0-9_-]{{43}}")


class News(NamedTuple):
    """What a callback says of the attempt whose token it has: nothing of it is proved.

    *names_us*: it named the attempt's external id as well.
    """

    task_id: str
    updated_at: float | None
    has_ended: bool
    names_us: bool = False


class Hint:
    """What may arrive for one attempt while it is in flight.

    *task_id* is what a callback has named, or the answer to the submission in a place that is not
    known: a guess to be confirmed; *names_us*: it named our external id as well, or answered it.
    *announced_end*: a callback said that the task has ended.
    *woke_at* (`Clock.monotonic`) is when a callback last caused a poll.
    """

    def __init__(self) -> None:
        self.named = Waker()  # set by any callback: there is a task, and this is its id
        self.ended = Waker()  # set by a callback that says that the task has ended
        self.task_id: str | None = None
        self.names_us = False
        self.announced_end = False
        self.woke_at = float("-inf")
        self._updated_at = float("-inf")

    def record(self, news: News) -> bool:
        """Take a callback in; False if it is older than what is known, and changes nothing."""
        if news.updated_at is not None:
            if news.updated_at < self._updated_at:
                return False
            self._updated_at = news.updated_at
        self.task_id, self.names_us = news.task_id, news.names_us
        self.named.set()
        if news.has_ended:
            self.announced_end = True
            self.ended.set()
        return True

    def guess(self, task_id: str) -> None:
        """Take in what the answer to the submission itself may have named."""
        self.task_id, self.names_us = task_id, True

    def correct(self, updated_at: float | None) -> None:
        """Record that the API says the task goes on: a callback that said otherwise was wrong.

        From here on "older" means older than this: a forged date in the future is forgotten.
        """
        self.announced_end = False
        if updated_at is not None:
            self._updated_at = updated_at


class Hints:
    """The attempts that are in flight, and whether callbacks have proved themselves in this run."""

    def __init__(self) -> None:
        self._by_attempt: dict[str, Hint] = {}
        self._owners: dict[str, tuple[str, str]] = {}  # start of a token's hash: the hash, whose
        self._announced = 0  # ends in a row
        self._heard: set[str] = set()  # attempts of which a callback came, until an end is missed
        self._has_missed = False
        self.doubted = (
            Waker()
        )  # wakes the pollers that wait longer than usual when the trust has ended

    @contextmanager
    def expect(self, external_task_id: str, token_hash: str | None) -> Iterator[Hint]:
        """Receive hints for an attempt while the block runs."""
        hint = self._by_attempt[external_task_id] = Hint()
        if token_hash is not None:
            self.renew(external_task_id, token_hash)
        try:
            yield hint
        finally:
            self._by_attempt.pop(external_task_id, None)

    def renew(self, external_task_id: str, token_hash: str) -> None:
        """Accept another token for an attempt that is expected already."""
        self._owners[token_hash[:KEY_CHARS]] = (token_hash, external_task_id)

    def owner(self, token: str) -> str | None:
        """Return whose token this is, in the same time for a right and a wrong one."""
        hashed = hash_token(token)
        known, owner = self._owners.get(hashed[:KEY_CHARS], ("0" * len(hashed), None))
        return owner if hmac.compare_digest(hashed, known) else None

    async def take(self, token: str, news: News | None) -> bool:
        """Take in what came with a token that has an owner."""
        owner = self.owner(token)
        if owner is not None and news is not None:
            self.record(owner, news)
        return owner is not None

    def expects(self, external_task_id: str) -> bool:
        """Return whether an attempt is in flight."""
        return external_task_id in self._by_attempt

    def record(self, external_task_id: str, news: News) -> bool:
        """Take a callback in; False if its attempt is not in flight or it is older than what is known."""
        hint = self._by_attempt.get(external_task_id)
        if hint is None:
            return False
        if not self._has_missed and len(self._heard) < PROVED_BY:
            self._heard.add(external_task_id)
        return hint.record(news)

    @property
    def stretch(self) -> float:
        """How many times longer than usual to wait for the next poll."""
        return STRETCH if self._is_trusted else 1.0

    @property
    def _is_trusted(self) -> bool:
        """Whether callbacks keep coming: of several tasks, and no end was missed yet."""
        return self._announced >= PROVED_BY or len(self._heard) >= PROVED_BY

    def ended(self, hint: Hint) -> None:
        """A task was seen to have ended: by a callback, or without one, which ends the trust."""
        if hint.announced_end:
            self._announced += 1
            return
        was_trusted = self._is_trusted
        self._announced, self._has_missed = 0, True
        self._heard.clear()
        if was_trusted:
            # Only trusted callbacks make pollers wait longer: waking all of them at every end would
            # cost as much as there are tasks.
            self.doubted.set()
            self.doubted.clear()


def new_token(external_task_id: str) -> str:
    """Return a token for an attempt: it says whose it is, and cannot be guessed."""
    return f"{external_task_id}-{secrets.token_urlsafe(32)}"


def named_in(token: str) -> str | None:
    """Return the attempt that a token is for, by what it says itself; None if no attempt has such a one."""
    found = _TOKEN.fullmatch(token)
    return None if found is None else found[1]


def hash_token(token: str) -> str:
    """Return what is stored of a token."""
    return hashlib.sha256(token.encode("utf-8", "replace")).hexdigest()
