"""`kling-batch plan`: what `run` would do and cost. Sends nothing, writes nothing."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click

from batch.cli.commands.flags import given_by, manifest_argument, settle, with_options
from batch.errors import ExitCode
from batch.manifest.model import Manifest
from batch.plan import Action, Decision, Plan, is_selected
from batch.run.planner import plan_only
from batch.settings import Settings

SHOWN = 50  # of each kind, in text; --json lists all


@click.command("plan", help=__doc__)
@manifest_argument
@with_options
@click.option("--json", "as_json", is_flag=True, help="Print the plan as JSON.")
@click.option("--quiet", is_flag=True, help="Print nothing when there is nothing to do.")
def command(manifest: Path, *, as_json: bool, quiet: bool, **flags: Any) -> int:
    """Plan and print."""
    loaded, settings = settle(manifest, given_by(flags))
    show_doubts(loaded, settings, quiet=quiet)
    show_plan(loaded, settings, as_json=as_json, quiet=quiet)
    return ExitCode.OK


def doubts(manifest: Manifest, settings: Settings) -> Iterator[str]:
    """Say what is doubtful in the manifest, and which --select takes no job in."""
    for pattern in settings.select:
        if not any(is_selected(job.id, job.tags, (pattern,)) for job in manifest.jobs):
            yield f"no job of the manifest matches --select {pattern!r}"
    yield from map(str, manifest.warnings[:SHOWN])
    if len(manifest.warnings) > SHOWN:
        yield f"… and {len(manifest.warnings) - SHOWN} more"


def show_doubts(manifest: Manifest, settings: Settings, *, quiet: bool) -> None:
    """Print the doubts to stderr."""
    for doubt in () if quiet else doubts(manifest, settings):
        click.echo(f"warning: {doubt}", err=True)


def show_plan(manifest: Manifest, settings: Settings, *, as_json: bool, quiet: bool) -> None:
    """Make the plan and print it to stdout."""
    plan = plan_only(manifest, settings)
    if quiet and not plan.decisions and not plan.resting:
        return
    if as_json:
        click.echo(json.dumps(to_json(manifest, settings, plan), ensure_ascii=False))
    else:
        click.echo(to_text(manifest, settings, plan))


def to_json(manifest: Manifest, settings: Settings, plan: Plan) -> dict[str, Any]:
    """Write the plan as plain JSON values."""
    return {
        "schema": 1,
        "name": manifest.name,
        "output_dir": str(settings.output_dir),
        "counts": {action.value: plan.counts[action] for action in Action},
        "cost_usd": round(plan.cost_usd, 4),
        "price_unknown": plan.has_unknown_price,
        "jobs": [_decision_json(item) for item in _listed(plan)],
    }


def to_text(manifest: Manifest, settings: Settings, plan: Plan) -> str:
    """Write the plan for a person."""
    counted = [f"{plan.counts[action]} {action.value}" for action in Action if plan.counts[action]]
    lines = [f"{manifest.name} → {settings.output_dir}: {', '.join(counted) or 'no jobs'}"]
    for action in Action:
        items = [item for item in _listed(plan) if item.action is action]
        lines += [f"  {action.value:<10} {item.job_id}: {item.reason}" for item in items[:SHOWN]]
        if len(items) > SHOWN:
            lines.append(f"  {action.value:<10} … and {len(items) - SHOWN} more")
    pays = sum(1 for item in plan.decisions if item.cost_usd is not None)
    guess = (
        " (a price is not known: the dearest known one stands in)" if plan.has_unknown_price else ""
    )
    lines.append(f"to pay for: {pays} tasks, about ${plan.cost_usd:.2f}{guess}")
    budget = settings.limits.budget_usd
    if budget is not None and plan.cost_usd > budget:
        lines.append(f"the budget of ${budget:.2f} will stop the run before the end")
    return "\n".join(lines)


def _listed(plan: Plan) -> list[Decision]:
    """Return each decision once, in the manifest's order; then those that rest, then orphans."""
    rest = {Action.RESTING, Action.ORPHANED}
    return [
        *(item for item in plan.decisions if item.action not in rest),
        *plan.resting,
        *plan.orphans,
    ]


def _decision_json(item: Decision) -> dict[str, Any]:
    return {
        "job_id": item.job_id,
        "action": item.action.value,
        "reason": item.reason,
        "cost_usd": None if item.cost_usd is None else round(item.cost_usd, 4),
        "price_known": item.price_known,
        "superseded_tasks": len(item.former),
    }
