"""`kling-batch plan`: report what `run` would do and cost."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click

from batch.cli.commands.flags import (
    manifest_argument,
    settle,
    unknown_variables,
    with_options,
)
from batch.cli.words import counted
from batch.errors import ExitCode
from batch.manifest.model import Manifest
from batch.plan import Action, Decision, Plan, is_selected
from batch.run.planner import plan_only
from batch.settings import Settings

SHOWN = 50  # of each kind, in text; --json lists all


@click.command("plan", help="Report what `run` would do and cost. Sends nothing, writes nothing.")
@manifest_argument
@with_options
@click.option("--json", "as_json", is_flag=True, help="Print the plan as JSON.")
@click.option("--quiet", is_flag=True, help="Print nothing when there is nothing to do.")
def command(manifest: Path, *, as_json: bool, quiet: bool, **flags: Any) -> int:
    """Print the warnings and the plan."""
    loaded, settings = settle(manifest, flags)
    show_warnings(loaded, settings, quiet=quiet)
    show_plan(loaded, settings, as_json=as_json, quiet=quiet)
    return ExitCode.OK


def warnings(manifest: Manifest, settings: Settings) -> Iterator[str]:
    """Warn of unknown variables, of patterns that match no job, and of warnings in the manifest."""
    yield from unknown_variables(os.environ)
    for pattern in settings.policy.select:
        if not any(is_selected(job.id, job.tags, (pattern,)) for job in manifest.jobs):
            yield f"no job of the manifest matches --select {pattern!r}"
    yield from map(str, manifest.warnings[:SHOWN])
    if len(manifest.warnings) > SHOWN:
        yield f"… and {len(manifest.warnings) - SHOWN} more"


def show_warnings(manifest: Manifest, settings: Settings, *, quiet: bool) -> None:
    """Print the warnings to stderr."""
    for warning in () if quiet else warnings(manifest, settings):
        click.echo(f"warning: {warning}", err=True)


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
    """Return the plan as plain JSON values."""
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
    """Return the plan as text."""
    counts = [f"{plan.counts[action]} {action.value}" for action in Action if plan.counts[action]]
    lines = [f"{manifest.name} → {settings.output_dir}: {', '.join(counts) or 'no jobs'}"]
    for action in Action:
        items = [item for item in _listed(plan) if item.action is action]
        lines += [f"  {action.value:<10} {item.job_id}: {item.reason}" for item in items[:SHOWN]]
        if len(items) > SHOWN:
            lines.append(f"  {action.value:<10} … and {len(items) - SHOWN} more")
    pays = sum(1 for item in plan.decisions if item.cost_usd is not None)
    guess = (
        " (where a price is unknown, the dearest known one is used)"
        if plan.has_unknown_price
        else ""
    )
    lines.append(f"to pay for: {counted(pays, 'task')}, about ${plan.cost_usd:.2f}{guess}")
    budget = settings.limits.budget_usd
    if budget is not None and plan.cost_usd > budget:
        lines.append(f"the budget of ${budget:.2f} will stop the run early")
    return "\n".join(lines)


def _listed(plan: Plan) -> list[Decision]:
    """Return every decision once: in the manifest's order, then resting jobs, then orphans."""
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
