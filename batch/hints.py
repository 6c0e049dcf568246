"""Callbacks as hints: what one may change (the moment of the next look), and how far to trust them.

Nothing signs a callback, nothing promises that it comes, or in which order. So it only makes the
runner ask; what is true is what the API answers. The token in each task's URL keeps strangers out,
and only its hash is stored.
"""

from __future__ import annotations

import hashlib
import hmac
import secrets
from collections.abc import Iterator
from contextlib import contextmanager

from batch.clock import Waker

STRETCH = 4.0  # how much rarer to poll while callbacks keep coming


class Hint:
    """What may arrive for one attempt while it is in flight.

    *task_id* is what a callback has named: a guess to be confirmed, for a lost answer. *has_come*
    tells that one has said the task has ended.
    """

    def __init__(self) -> None:
        self.named = Waker()  # set by any callback: there is a task, and this is its id
        self.ended = Waker()  # set by a callback that says that the task has ended
        self.task_id: str | None = None
        self.has_come = False
        self._updated_at = float("-inf")

    def come(self, task_id: str, updated_at: float | None, *, has_ended: bool) -> bool:
        """Take a callback in; False if it is older than what is known, and changes nothing."""
        if updated_at is not None:
            if updated_at < self._updated_at:
                return False
            self._updated_at = updated_at
        self.task_id = task_id
        self.named.set()
        if has_ended:
            self.has_come = True
            self.ended.set()
        return True


class Hints:
    """The attempts that are in flight, and whether callbacks have proved themselves in this run."""

    def __init__(self) -> None:
        self._by_attempt: dict[str, Hint] = {}
        self._by_hash: dict[str, str] = {}
        self._trusted = False

    @contextmanager
    def expect(self, external_task_id: str, token_hash: str | None) -> Iterator[Hint]:
        """Receive hints for an attempt while the block runs."""
        hint = self._by_attempt[external_task_id] = Hint()
        if token_hash is not None:
            self._by_hash[token_hash] = external_task_id
        try:
            yield hint
        finally:
            self._by_attempt.pop(external_task_id, None)

    def renew(self, external_task_id: str, token_hash: str) -> None:
        """Accept another token for an attempt that is expected already."""
        self._by_hash[token_hash] = external_task_id

    def owner(self, token: str) -> str | None:
        """Return whose token this is, in the same time for a right and a wrong one."""
        hashed = hash_token(token)
        owner = self._by_hash.get(hashed)
        # The look-up goes by a hash, which tells an attacker's clock nothing about the token.
        return owner if hmac.compare_digest(hashed, hashed if owner else "0" * 64) else None

    def come(
        self, external_task_id: str, task_id: str, updated_at: float | None, *, has_ended: bool
    ) -> bool:
        """Take a callback in; False if nobody waits for it or it is older than what is known."""
        hint = self._by_attempt.get(external_task_id)
        return hint is not None and hint.come(task_id, updated_at, has_ended=has_ended)

    @property
    def stretch(self) -> float:
        """How many times longer than usual to wait for the next look."""
        return STRETCH if self._trusted else 1.0

    def ended(self, hint: Hint) -> None:
        """A task was seen to have ended: by a callback, or without one, which ends the trust."""
        self._trusted = hint.has_come


def new_token() -> str:
    """Make a token that nobody can guess."""
    return secrets.token_urlsafe(32)


def hash_token(token: str) -> str:
    """Return what is stored of a token."""
    return hashlib.sha256(token.encode()).hexdigest()
