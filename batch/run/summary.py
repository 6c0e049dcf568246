"""What a run came to, as `--json` prints it, and as the state keeps it."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, field
from typing import Any

from batch.errors import ExitCode
from batch.frozen import frozen
from batch.library.accounts import Figures
from batch.manifest.limits import Limits

SUMMARY_SCHEMA = 1
Marks = Sequence[tuple[int, str, int]]
"""When requests were refused for now, as `batch.run.refusals` counts them, which no quiet night loads."""
TROUBLES_SHOWN = 1000


@frozen
class Summary:
    """What a run came to. `to_json` is what `--json` prints.

    *tasks_created* and *cost_usd* are this run's; *library* is what all runs of the folder came to, as
    `status` and `ledger` report it. *moved* counts jobs for which nothing but that was to be done. With
    *sandbox* nothing was paid: costs are the provider's prices. *uploads* is what became of those to the
    bucket, if there is one.
    """

    run_id: str
    name: str
    output_dir: str
    exit_code: ExitCode
    planned: dict[str, int]
    outcomes: dict[str, int] = field(default_factory=dict)
    tasks_created: int = 0
    adopted: int = 0
    superseded: int = 0
    moved: int = 0
    cost_usd: float = 0.0
    left: int = 0
    seconds: float = 0.0
    stopped: str | None = None
    troubles: tuple[dict[str, Any], ...] = ()
    resting: tuple[tuple[str, str], ...] = ()
    bugs: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()
    library: Figures = field(default_factory=Figures)
    sandbox: bool = False
    uploads: dict[str, Any] | None = None

    def to_json(self) -> dict[str, Any]:
        """Return the summary as plain JSON values."""
        return {
            "schema": SUMMARY_SCHEMA,
            **asdict(self),
            "exit_code": int(self.exit_code),
            "library": self.library._asdict(),
            "troubles": [
                {key: row[key] for key in ("job_id", "status", "task_id", "error")}
                for row in self.troubles[:TROUBLES_SHOWN]
            ],
            "resting": [{"job_id": job_id, "reason": reason} for job_id, reason in self.resting],
            "bugs": len(self.bugs),
            "warnings": list(self.warnings),
        }

    def to_record(
        self, planned_usd: float, limits: Limits, refused: Marks = (), **more: Any
    ) -> str:
        """Return what later commands want to know of the run, as JSON.

        Args:
            planned_usd: what the plan costs.
            limits: those of the run.
            refused: when requests were refused for the moment.
            more: what else is kept, by name.
        """
        rate = limits.submit_rate
        kept = ("planned", "outcomes", "tasks_created", "cost_usd", "left", "stopped")
        record = {name: getattr(self, name) for name in kept}
        record |= {
            "planned_cost_usd": round(planned_usd, 4),
            "refused": refused,
            "limits": {
                "budget_usd": limits.budget_usd,
                "budget_per_month_usd": limits.budget_per_month_usd,
                "day_starts": f"{limits.day_starts:%H:%M}",
                "max_attempts": limits.max_attempts,
                "give_up_after": limits.give_up_after,
                "max_in_flight": limits.max_in_flight,
                "submit_rate": [rate.count, rate.period_s],
            },
        }
        return json.dumps(record | more, ensure_ascii=False)
