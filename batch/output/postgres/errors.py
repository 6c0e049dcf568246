"""What Postgres reports, as sentences that a person can act on. None shows the password."""

from __future__ import annotations

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


class map_errors:  # noqa: N801 - reads as a word where it is used
    """Raise errors of Postgres as errors of the state, naming *place*."""

    def __init__(self, place: str) -> None:
        self._place = place

    def __enter__(self) -> None:
        return None

    def __exit__(self, _kind: object, error: BaseException | None, _trace: object) -> None:
        if isinstance(error, psycopg.Error):
            raise as_ours(error, self._place) from error


def as_ours(error: psycopg.Error, place: str) -> BatchError:
    """Return the error of the state that an error of Postgres stands for."""
    said = (error.diag.message_primary, error.diag.message_detail)  # not the statement
    text = " ".join(" ".join(filter(None, said) if any(said) else [str(error)]).split())
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
    if isinstance(error, LOST):
        return AwayError(
            f"{place} does not answer ({text}); nothing was sent without a record of it. Run again"
            " when it does"
        )
    return StateError(f"{place} cannot be used: {text}")
