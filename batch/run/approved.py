"""A plan as a file: saved for a person to look at, and read back by the run that goes by it."""

from __future__ import annotations

from pathlib import Path

from batch.errors import UsageError
from batch.library.ledger import iso
from batch.manifest.model import Manifest
from batch.output import disk
from batch.output.folder import LIBRARY, peek
from batch.plan import Action, Plan
from batch.plan.saved import SavedPlan, saved_jobs
from batch.settings import Settings


def save_plan(path: Path, plan: Plan, manifest: Manifest, settings: Settings, now: float) -> None:
    """Write what a run would pay for into a file, whole or not at all.

    Raises:
        UsageError: the file cannot be written.
    """
    saved = SavedPlan(
        saved_at=iso(now),
        name=manifest.name,
        output_dir=_whole(settings.output_dir),
        library=_library(settings),
        sandbox=settings.sandbox,
        jobs=saved_jobs(plan),
    )
    try:
        disk.write_whole(path, saved.to_json().encode())
    except OSError as error:
        what = error.strerror or type(error).__name__
        raise UsageError(f"the plan cannot be saved as {path} ({what})") from error


def saved_plan(path: Path, settings: Settings) -> SavedPlan:
    """Return the saved plan that a run is to go by.

    Raises:
        UsageError: it cannot be read, is of another folder, or needs --force.
    """
    try:
        saved = SavedPlan.from_json(path.read_bytes())
    except OSError as error:
        what = error.strerror or type(error).__name__
        raise UsageError(f"the saved plan {path} cannot be read ({what})") from error
    except ValueError as error:
        raise UsageError(f"{path} cannot be used: {error}") from error
    if not _is_of(saved, settings):
        raise UsageError(
            f"{path} is a plan for another folder, {saved.output_dir}; this run is about"
            f" {_whole(settings.output_dir)}. Nothing was sent"
        )
    if any(job.action == Action.FORCED for job in saved.jobs) and not settings.policy.force:
        raise UsageError(f"{path} was planned with --force; add --force. Nothing was sent")
    return saved


def _is_of(saved: SavedPlan, settings: Settings) -> bool:
    if saved.sandbox != settings.sandbox:
        return False
    if saved.library is not None:  # a folder may have moved
        return saved.library == _library(settings)
    return saved.output_dir == _whole(settings.output_dir)


def _library(settings: Settings) -> str | None:
    with peek(settings.output_dir, sandbox=settings.sandbox) as database:
        return None if database is None else database.fact(LIBRARY)


def _whole(folder: Path) -> str:
    return str(folder.resolve())
