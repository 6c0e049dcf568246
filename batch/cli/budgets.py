"""How the budgets of a library stand, as a plan says it. Loaded only where a plan is shown."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from batch.days import local_second
from batch.library.allowances import Standing, allowances, standings
from batch.library.ledger import iso
from batch.output.folder import peek
from batch.plan import Plan
from batch.plan.saved import told_held
from batch.run.budget import DUST_USD
from batch.settings import Settings

_NOW = {"day": "today", "month": "this month"}


def budgets_now(settings: Settings, now: float) -> list[Standing]:
    """Return how the budgets per day and month stand; the state is read only where there are some.

    Raises:
        StateError: there is a state, and it cannot be read.
    """
    found = allowances(settings.limits)
    if not found:
        return []
    with peek(settings.output_dir, sandbox=settings.sandbox) as database:
        return standings(found, (lambda _at: []) if database is None else database.payments, now)


def to_json(settings: Settings, budgets: Sequence[Standing]) -> dict[str, Any]:
    """Return the budgets as plain JSON values; `day` and `month` are null where there is none."""
    return {
        "run_usd": settings.limits.budget_usd,
        "max_plan_cost_usd": settings.limits.max_plan_cost_usd,
        "day": None,
        "month": None,
        **{standing.allowance.name: _standing(standing) for standing in budgets},
    }


def to_lines(
    settings: Settings, plan: Plan, budgets: Sequence[Standing], now: float
) -> Iterator[str]:
    """Yield the lines about what a run may do: by a saved plan, the budgets, and its deadline."""
    yield from filter(None, [told_held(item for _, item in plan.decisions.kept())])
    limits = settings.limits
    left_s = limits.seconds_left(now)
    if left_s is not None and plan.decisions:
        yield f"a run that begins now ends by {local_second(now + left_s)}, its deadline"
    if budgets:
        told = (
            f"{_NOW[item.allowance.name]} ${item.spent_usd:.2f} of ${item.allowance.limit_usd:.2f}"
            for item in budgets
        )
        yield f"{', '.join(told)} (estimates)"
    if limits.max_plan_cost_usd is not None and plan.cost_usd > limits.max_plan_cost_usd:
        yield f"dearer than max_plan_cost (${limits.max_plan_cost_usd:.2f}): a run submits nothing"
        return
    left = [] if limits.budget_usd is None else [(limits.budget_usd, "")]
    left += [(item.left_usd, f" left {_NOW[item.allowance.name]}") for item in budgets]
    for usd, when in sorted(left)[:1]:
        if plan.cost_usd > usd + DUST_USD:
            yield f"the budget of ${usd:.2f}{when} will stop the run early"


def _standing(standing: Standing) -> dict[str, Any]:
    return {
        "limit_usd": standing.allowance.limit_usd,
        "spent_usd": round(standing.spent_usd, 4),
        "begins_at": iso(standing.span.begins),
        "ends_at": iso(standing.span.ends),
    }
