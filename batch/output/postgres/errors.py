"""What Postgres reports, as sentences that a person can act on. None shows the password."""

from __future__ import annotations

import re

import psycopg
from psycopg import errors

from batch.errors import (
    AwayError,
    BatchError,
    ClaimLostError,
    LockedError,
    RefusedError,
    StateError,
)
from batch.output.postgres.functions import CLAIM_LOST

LOST = (
    psycopg.OperationalError,  # the connection, or the server's memory
    psycopg.InterfaceError,
    errors.ReadOnlySqlTransaction,  # a standby that is about to take the server's place
)

# Before there is a session, an error has words only: neither a class nor a code.
_REFUSALS = re.compile(
    r"authentication failed|no password supplied|no pg_hba\.conf entry|pg_hba\.conf rejects"
    r'|role ".*" does not exist|database ".*" does not exist|is not permitted to log in'
)


class map_errors:  # noqa: N801 - reads as a word where it is used
    """Raise errors of Postgres as errors of the state, naming *place*."""

    def __init__(self, place: str) -> None:
        self._place = place

    def __enter__(self) -> None:
        return None

    def __exit__(self, _kind: object, error: BaseException | None, _trace: object) -> None:
        if isinstance(error, psycopg.Error):
            raise as_ours(error, self._place) from error


def is_refusal(error: psycopg.Error) -> bool:
    """Return whether a database that answers lets nobody in with this address: a wrong password."""
    is_lost = isinstance(error, psycopg.OperationalError) and error.sqlstate is None
    return is_lost and _REFUSALS.search(str(error)) is not None


def trouble_with(error: psycopg.Error, place: str) -> str:
    """Return what is wrong where *place* cannot be reached: whether it refuses, or does not answer."""
    if is_refusal(error):
        return f"{place} refuses the login ({_text(error)})"
    return f"{place} does not answer"


def as_ours(error: psycopg.Error, place: str) -> BatchError:
    """Return the error of the state that an error of Postgres stands for."""
    text = _text(error)
    if error.sqlstate == CLAIM_LOST:
        return ClaimLostError(f"{text}: this worker was taken for dead; nothing was recorded")
    if isinstance(error, errors.UniqueViolation):
        if error.diag.constraint_name == "open_run_of_library":
            return LockedError(f"another run of this library has not ended, in {place}")
        return RefusedError(
            f"{place} refuses what would make two attempts the owner of one task, or give a job two"
            f" unfinished ones ({text}); nothing of it was recorded. This is a bug of kling-batch;"
            " please report it"
        )
    if isinstance(error, errors.InsufficientPrivilege):
        return StateError(f"the role may not use {place} ({text}); grant it that and run again")
    if isinstance(error, errors.DiskFull):
        return StateError(f"no space left on the disk of {place}; make room and run again ({text})")
    if is_refusal(error):  # as one that is away: it may have been told the new password later
        return AwayError(f"{trouble_with(error, place)}; correct that and run again")
    if isinstance(error, LOST):
        return AwayError(
            f"{place} does not answer ({text}); nothing was sent without a record of it. Run again"
            " when it does"
        )
    return StateError(f"{place} cannot be used: {text}")


def _text(error: psycopg.Error) -> str:
    said = (error.diag.message_primary, error.diag.message_detail)  # not the statement
    return " ".join(" ".join(filter(None, said) if any(said) else [str(error)]).split())
