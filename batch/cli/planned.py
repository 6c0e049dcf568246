"""A plan as `plan` and `run --dry-run` show it, and the warnings before it."""

from __future__ import annotations

import itertools
import json
import os
from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import click

from batch.cli.bucket import bucket_line, uploads_now
from batch.cli.commands.flags import unknown_variables
from batch.cli.words import counted
from batch.clock import SystemClock
from batch.manifest.model import Manifest
from batch.notify.channels import channels_of
from batch.output.folder import OLDER, is_older
from batch.output.stores import has_state, is_known, open_to_read
from batch.plan import Action, Decision, Plan
from batch.prices import estimator
from batch.run.planner import plan_only
from batch.settings import Settings

SHOWN = 50  # of each kind, in text; --json lists all
AT_ONCE = 1_000  # jobs in a piece of JSON
SHARED = 5  # so many jobs with the same changes get a line each


def warnings(manifest: Manifest, settings: Settings) -> Iterator[str]:
    """Warn of unknown variables, of excluded tags that no job has, and as the manifest does."""
    yield from unknown_variables(os.environ)
    yield from channels_of(manifest.notify, manifest.path.parent, os.environ).faults
    for tag in settings.policy.selection.idle_tags(manifest.jobs):
        yield f"the pattern {tag!r} excludes no job of the manifest"
    yield from map(str, manifest.warnings[:SHOWN])
    if len(manifest.warnings) > SHOWN:
        yield f"… and {len(manifest.warnings) - SHOWN} more"


def show_plan(
    manifest: Manifest, settings: Settings, *, as_json: bool, quiet: bool, out: Path | None = None
) -> None:
    """Make the plan, save it where it is to be, and print it to stdout."""
    plan = plan_only(manifest, settings)
    if out is not None:
        from batch.run.approved import save_plan  # noqa: PLC0415

        save_plan(out, plan, manifest, settings, SystemClock().now())
    if not quiet and _is_older(settings):
        click.echo(f"warning: {OLDER}; a run looks up what it forgot before it pays", err=True)
    uploads = uploads_now(settings)
    pending = 0 if uploads is None else uploads["pending"]
    if quiet and not (plan.decisions or plan.resting or plan.moved or pending):
        return
    from batch.cli import budgets  # noqa: PLC0415 - a run shows no plan

    now = SystemClock().now()
    standing = budgets.budgets_now(settings, now)
    if as_json:
        for piece in to_json(
            manifest, settings, plan, budgets.to_json(settings, standing), uploads
        ):
            click.echo(piece, nl=False)
    else:
        lines = list(budgets.to_lines(settings, plan, standing, now))
        if uploads is not None:
            lines.append(f"{bucket_line(uploads)}; each video that lands is uploaded")
        click.echo(to_text(manifest, settings, plan, lines))


def _is_older(settings: Settings) -> bool:
    root, home = settings.output_dir, settings.state_folder
    if home is None or not has_state(root):
        return False
    with open_to_read(root) as database:  # the plan has looked at its results
        return is_older(database, home)


def to_json(
    manifest: Manifest,
    settings: Settings,
    plan: Plan,
    budget: dict[str, Any],
    uploads: dict[str, Any] | None,
) -> Iterator[str]:
    """Yield the plan as one line of JSON, in pieces: it may list a million jobs."""
    _, cost_all_usd = _everything(manifest, plan)
    found = {
        "schema": 1,
        "name": manifest.name,
        "output_dir": str(settings.output_dir),
        "new_library": not is_known(settings.output_dir),
        "counts": {action.value: plan.counts[action] for action in Action},
        "cost_usd": round(plan.cost_usd, 4),
        "cost_all_usd": round(cost_all_usd, 4),
        "price_unknown": plan.has_unknown_price,
        "budget": budget,
        "unfinished_round": plan.unfinished,
        "jobs": [],
        "uploads": uploads,
    }
    before, listed, after = json.dumps(found, ensure_ascii=False).partition('"jobs": [')
    yield before + listed
    pieces = (
        json.dumps(_decision_json(i, plan), ensure_ascii=False)
        for i in _listed(plan, plan.decisions)
    )
    separator = ""
    while batch := list(itertools.islice(pieces, AT_ONCE)):
        yield separator + ", ".join(batch)
        separator = ", "
    yield f"{after}\n"


def to_text(
    manifest: Manifest, settings: Settings, plan: Plan, about_budgets: Iterable[str]
) -> str:
    """Return the plan as text."""
    counts = [f"{plan.counts[action]} {action.value}" for action in Action if plan.counts[action]]
    lines = [f"{manifest.name} → {settings.output_dir}: {', '.join(counts) or 'no jobs'}"]
    if not is_known(settings.output_dir):
        lines.append(f"  a new library at {settings.output_dir.absolute()}")
    for action, items in _alike(plan).items():
        told = _changes(items, plan) if action is Action.CHANGED else map(_line, items)
        shown = list(itertools.islice(told, SHOWN + 1))
        lines += shown[:SHOWN]
        if len(shown) > SHOWN:
            number = plan.counts[action] if action is Action.NEW else len(items)
            lines.append(f"  {action.value:<10} … and more; --json lists all {number}")
    return "\n".join([*lines, *_money(manifest, plan, about_budgets)])


def _alike(plan: Plan) -> dict[Action, list[Decision]]:
    """Return what is listed by its action; of what was never made only as much as is shown."""
    alike: dict[Action, list[Decision]] = {action: [] for action in Action}
    for item in _listed(plan, (item for _, item in plan.decisions.kept())):
        alike[item.action].append(item)
    new = (item for item in plan.decisions if item.action is Action.NEW)
    alike[Action.NEW] = list(itertools.islice(new, SHOWN + 1))
    return alike


def _line(item: Decision) -> str:
    return f"  {item.action.value:<10} {item.job_id}: {item.reason}"


def _changes(items: list[Decision], plan: Plan) -> Iterator[str]:
    """Yield a line for each changed job; many with the same changes share one."""
    alike: dict[str, list[Decision]] = {}
    for item in items:
        changed = plan.changed.get(item.job_id)
        told = "; ".join(map(str, changed.options if changed else ())) or item.reason
        alike.setdefault(told, []).append(item)
    for told, group in alike.items():
        if len(group) > SHARED:
            yield f"  {'changed':<10} ({len(group)} jobs) {told}{_cost(group, plan)}"
        else:
            for item in group:
                moved = f"was {item.moved_from!r}; " if item.moved_from else ""
                yield f"  {'changed':<10} {item.job_id}: {moved}{told}{_cost([item], plan)}"


def _cost(items: list[Decision], plan: Plan) -> str:
    after = sum(item.cost_usd or 0.0 for item in items)
    changed = [plan.changed[item.job_id] for item in items if item.job_id in plan.changed]
    before = sum(change.cost_before_usd or 0.0 for change in changed)
    return f"    ${before:.2f} → ${after:.2f}"


def _money(manifest: Manifest, plan: Plan, about_budgets: Iterable[str]) -> Iterator[str]:
    """Yield the lines about money, and about a round of --force."""
    number, cost_usd = _everything(manifest, plan)
    yield (
        f"to pay for: {counted(plan.decisions.priced, 'task')}, about ${plan.cost_usd:.2f}; everything once:"
        f" {counted(number, 'task')}, about ${cost_usd:.2f}"
    )
    if plan.has_unknown_price:
        yield _guessed(plan)
    yield from about_budgets
    if plan.round is not None and not plan.round.is_new:
        yield "--force goes on with the round that an earlier run has begun"
    if plan.unfinished:
        yield (
            f"a round of --force is unfinished: {counted(plan.unfinished, 'job')} left; a run without"
            " --force leaves them as they are"
        )


def _guessed(plan: Plan) -> str:
    """Return whose price is not known, and what it counts as."""
    models: Counter[str] = Counter()
    most_usd = 0.0
    for item in plan.decisions:
        if item.job and not item.price_known:
            models[str(item.job.body().get("model_name"))] += 1
            most_usd = max(most_usd, item.cost_usd or 0.0)
    named = ", ".join(f"{model} ({counted(n, 'task')})" for model, n in models.most_common())
    return (
        f"of unknown price: {named}, counted as the dearest known one, up to ${most_usd:.2f} each;"
        " mend the name, or set it under prices:"
    )


def _everything(manifest: Manifest, plan: Plan) -> tuple[int, float]:
    """Return how many tasks all jobs take, each once, and what they cost."""
    number, price = len(manifest.jobs), estimator(manifest.prices)
    if plan.decisions.priced == number:  # each is to be paid for: the plan has added them up
        return number, plan.cost_usd
    return number, sum(price(job)[0] for job in manifest.jobs)


def _listed(plan: Plan, decisions: Iterable[Decision]) -> Iterator[Decision]:
    """Iterate over every decision once: in the manifest's order, then resting jobs, then orphans."""
    rest = {Action.RESTING, Action.ORPHANED}
    return itertools.chain(
        (item for item in decisions if item.action not in rest),
        plan.moved,
        plan.pinned,
        plan.resting,
        plan.orphans,
    )


def _decision_json(item: Decision, plan: Plan) -> dict[str, Any]:
    changed = plan.changed.get(item.job_id)
    options = () if changed is None else changed.options
    return {
        "job_id": item.job_id,
        "action": item.action.value,
        "reason": item.reason,
        "cost_usd": None if item.cost_usd is None else round(item.cost_usd, 4),
        "cost_before_usd": None if changed is None else changed.cost_before_usd,
        "price_known": item.price_known,
        "held": item.held,
        "superseded_tasks": len(item.former),
        "moved_from": item.moved_from,
        "changes": [{"option": one.option, "from": one.before, "to": one.after} for one in options],
    }
