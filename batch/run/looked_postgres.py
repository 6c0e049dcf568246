"""What the rows of a fleet say of an admission in Postgres, and what is kept of it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

from batch.errors import ClaimLostError
from batch.library.allowances import Standing
from batch.run.account import Traffic
from batch.run.admission import Seen, known_limit
from batch.run.doorkeeper import Request

Row = Any  # its columns are attributes


class Looked(NamedTuple):
    """What the records say: of account and run, of each attempt that asks, and who waits for a slot."""

    seen: Seen
    asking: list[Row]
    waited_until: float


def check_claims(requests: Sequence[Request], asking: Sequence[Row]) -> None:
    """Raise ClaimLostError unless all claims are the newest."""
    for request, row in zip(requests, asking, strict=True):
        if request.claim is not None and row.token != request.claim.token:
            raise ClaimLostError(f"another worker has the job {request.claim.job_id}")


def seen_of(account: Row, seen: Row, standings: tuple[Standing, ...]) -> Seen:
    """Return what the rows of an account and a run say, and what is spent of day and month."""
    ceiling = account.max_in_flight or seen.most or 1
    traffic = Traffic(
        limit=known_limit(account.slot_limit, ceiling),
        quiet_s=account.quiet_s,
        raise_at=account.raise_at,
        is_probing=account.probing,
        due_at=account.due_at,
        paused_until=account.paused_until,
        refusals=account.refusals,
    )
    stop = None if seen.stop_reason is None else (seen.stop_reason, seen.stop_sentence)
    return Seen(
        now=seen.now,
        traffic=traffic,
        ceiling=ceiling,
        interval_s=account.rate_interval_s or seen.interval_s or 1.0,
        in_use=seen.in_use,
        of_run=seen.of_run,
        reserved_usd=seen.reserved_usd,
        standings=standings,
        deadline_at=seen.deadline_at,
        stop=stop,
        refused=account.refused,
        is_open=seen.is_open,
        is_doubted=seen.is_doubted,
    )


def kept(
    values: dict[str, Any], seen: Seen, traffic: Traffic, waited_until: float = 0.0
) -> dict[str, Any]:
    """Return *values*, and what `KEEP` is to keep of the account's *traffic*."""
    limit = None if traffic.limit >= seen.ceiling else traffic.limit
    fields: dict[str, Any] = {name: getattr(traffic, name) for name in Traffic.__match_args__}
    return {**values, **fields, "limit": limit, "waited_until": waited_until}
