"""A folder, a manifest and settings become a planned run.

Light on purpose: a night on which nothing is to be done needs no more than this.
"""

from __future__ import annotations

import itertools
import json
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

from batch.clock import Clock, SystemClock
from batch.errors import ExitCode, UsageError
from batch.frozen import frozen
from batch.library.accounts import Books, Spent, flat
from batch.library.planned import facts_of
from batch.manifest.model import Manifest
from batch.output.folder import OutputFolder, open_folder, peek
from batch.output.layout import Layout
from batch.output.row import new_run_id
from batch.output.state import AddRow, BeginRun, Change, EndRun, Fact, Force
from batch.output.store import Store
from batch.output.stores import is_known
from batch.output.uploaded import Found, away, is_due
from batch.plan import COSTING, PAYING, History, Plan, make_plan
from batch.plan.changes import Changed, compare
from batch.prices import estimator
from batch.run.moves import carry_out
from batch.run.presence import Presence
from batch.run.summary import Marks, Summary
from batch.settings import Settings
from batch.target import check_installed

Hold = Callable[[Plan], None]
"""Holds back the jobs of a plan that a run may not pay for."""


@frozen
class PlannedRun:
    """An output folder that is ours for the time of a run, and what is to be done in it.

    *found* are changes that planning has found in the videos, still to be recorded.
    """

    manifest: Manifest
    settings: Settings
    run_id: str
    folder: OutputFolder
    plan: Plan
    started_at: float
    books: Books
    found: tuple[Change, ...] = ()

    @property
    def is_quiet(self) -> bool:
        """Whether nothing is to be asked of the provider, or done at the bucket."""
        folder, target = self.folder, self.settings.target
        if self.plan.decisions or target is None:
            return not self.plan.decisions
        if self.plan.moves or self.found or self._has_to_derive():
            return False
        return not is_due(folder.database, folder.layout.root, target, self.started_at)

    @property
    def counts(self) -> dict[str, int]:
        """How many jobs the plan has of each action, by its name."""
        return {action.value: count for action, count in self.plan.counts.items()}

    def summary(
        self,
        exit_code: ExitCode,
        sent: Collection[str] = (),
        taken_over: Collection[str] = (),
        **found: Any,
    ) -> Summary:
        """Return the summary of this run: what the state says, and *found*.

        Args:
            exit_code: how it ended.
            sent: as `batch.run.counts.Counts` has it.
            taken_over: likewise.
            found: fields of the summary.
        """
        spent, library = Spent(), self.books.figures
        if self.plan.decisions:  # or else nothing was created, and the state need not be read again
            attempts = itertools.chain.from_iterable(self.folder.database.jobs())
            spent, library = self.books.close(attempts, sent, taken_over)
        return Summary(
            run_id=self.run_id,
            name=self.manifest.name,
            output_dir=str(self.settings.output_dir),
            sandbox=self.settings.sandbox,
            exit_code=exit_code,
            planned=self.counts,
            moved=len(self.plan.moved),
            resting=tuple((item.job_id, item.reason) for item in self.plan.resting),
            tasks_created=spent.tasks,
            adopted=spent.adopted,
            cost_usd=spent.cost_usd,
            library=library,
            **found,
        )

    def rows(self) -> Iterator[dict[str, Any]]:
        """Iterate over the rows of this run that are in the state."""
        named = f'"run_id":"{self.run_id}"'
        for line in self.folder.database.result_lines():
            if named in line and (row := json.loads(line))["run_id"] == self.run_id:
                yield row

    def begin(self) -> None:
        """Record that the run has begun, and do what needs no provider: move jobs, begin a round."""
        begun: list[Change] = [BeginRun(self.run_id, self.started_at), *self._planned()]
        if self.plan.round is not None:
            begun += [
                Force(fingerprint, self.started_at, videos)
                for fingerprint, videos in self.plan.round.begun.items()
            ]
        self.folder.database.write(begun)
        self.folder.seen.note(self.run_id, has_ended=False)
        self._record_found()
        self._carry_out_moves()

    def _planned(self) -> list[Fact]:
        to_pay = sum(self.plan.counts[action] for action in PAYING)
        database, jobs = self.folder.database, self.manifest.jobs
        return facts_of(database, jobs, self.started_at, to_pay, self.settings.target)

    def _has_to_derive(self) -> bool:
        from batch.library.derived import has_to_derive  # noqa: PLC0415 - only where asked for

        wanted = self.manifest.derived
        return bool(wanted) and has_to_derive(self.folder.database, wanted, self.settings.target)

    def derive(self) -> tuple[str, ...]:
        """Write the files beside the videos, as far as rows have changed; return what failed."""
        if not self.manifest.derived:
            return ()
        from batch.library.derived import Listing, derive  # noqa: PLC0415 - only where asked for

        listing = Listing(self.manifest.name, self.run_id, self.manifest.jobs, self.settings.target)
        return tuple(derive(self.folder, self.manifest.derived, listing))

    def end(self, summary: Summary, clock: Clock, refused: Marks = ()) -> None:
        """Record how the run ended, and what it came to.

        From then on the size of results.jsonl shows whether it is whole.
        """
        self.folder.results.flush()
        record = summary.to_record(self.plan.cost_usd, self.settings.limits, refused)
        ended = EndRun(self.run_id, clock.now(), int(summary.exit_code), record)
        self.folder.database.write([ended])
        self.folder.seen.note(self.run_id, has_ended=True)

    def end_quietly(self, clock: Clock) -> Summary:
        """Record a run in which nothing is to be paid for or fetched."""
        self._record_found()
        self._carry_out_moves()
        self.folder.results.flush()
        exit_code = ExitCode.JOBS_FAILED if self.plan.resting else ExitCode.OK
        target = self.settings.target
        uploads = None if target is None else Found(target.url).to_json()
        warnings = (*self.folder.warnings, *self.derive())
        summary = self.summary(exit_code, warnings=warnings, uploads=uploads)
        record = summary.to_record(self.plan.cost_usd, self.settings.limits)
        begun = BeginRun(self.run_id, self.started_at)
        ended = EndRun(self.run_id, clock.now(), int(exit_code), record)
        self.folder.database.write([begun, *self._planned(), ended])
        self.folder.seen.note(self.run_id, has_ended=True)
        return summary

    def _record_found(self) -> None:
        if self.found:
            self.folder.database.write(self.found)
            rows = (change for change in self.found if isinstance(change, AddRow))
            self.folder.results.append([row.line for row in rows])

    def _carry_out_moves(self) -> None:
        carry_out(self.folder, self.plan.moves, run_id=self.run_id, now=self.started_at)


@contextmanager
def open_planned_run(manifest: Manifest, settings: Settings, clock: Clock) -> Iterator[PlannedRun]:
    """Open the output folder and plan.

    Raises:
        LockedError: another run holds the folder.
        StateError: the folder or the state cannot be used.
        UsageError: the folder holds videos of the sandbox and this is a real run, or the reverse; a
            pattern matches no job; the saved plan cannot be used; or a real run would pay for a new
            library without being told so.
    """
    check_selection(manifest, settings)
    if settings.target is not None:
        check_installed()
    hold = _held_by_plan(settings)
    unexpected = unexpected_library(manifest, settings)
    if unexpected is not None:
        raise UsageError(
            f"{unexpected}. If that is what you want, add --new. If the library exists, check the"
            " working directory, --output-dir, the manifest's name, and whether its disk is mounted."
            " Nothing was sent"
        )
    root, home, now = settings.output_dir, settings.state_folder, clock.now()
    with open_folder(root, sandbox=settings.sandbox, now=now, state_folder=home) as folder:
        yield _plan_run(manifest, settings, folder, hold, clock)


def _plan_run(
    manifest: Manifest, settings: Settings, folder: OutputFolder, hold: Hold, clock: Clock
) -> PlannedRun:
    """Plan a run. What is known of all attempts is held no longer than that."""
    started_at, known = clock.now(), folder.database.known()
    run_id = new_run_id(started_at)
    plan, presence = _plan(manifest, settings, known, folder.database, hold, clock.now())
    attempts = flat(known)
    if settings.target is not None and not settings.target.removes:  # else they are looked at there
        kept = (decision for _, decision in plan.decisions.kept())
        others = itertools.chain(plan.orphans, plan.resting, kept)
        attempts = presence.look_at_rest(attempts, {decision.job_id for decision in others})
    books = Books.open(attempts)
    found = tuple(presence.changes(run_id, started_at, manifest.jobs))
    return PlannedRun(manifest, settings, run_id, folder, plan, started_at, books, found)


def unexpected_library(manifest: Manifest, settings: Settings) -> str | None:
    """Return what a run would make that nobody may have meant: a new library, paid for from nothing.

    A wrong working directory, a renamed manifest and a disk that is not mounted look like that.
    """
    if settings.sandbox or settings.new or is_known(settings.output_dir):
        return None
    plan = plan_only(manifest, settings)
    paying = sum(plan.counts[action] for action in COSTING)
    if not paying:
        return None
    videos = "1 video" if paying == 1 else f"{paying} videos"
    root = settings.output_dir.absolute()
    made = "nothing was ever made there"
    if any(Layout(root).videos.rglob("*.mp4")):
        made = "it has videos, but no state of the runs that made them"
    return (
        f"{root} is a new library: {made}, and this run would pay for {videos}, about"
        f" ${plan.cost_usd:.2f}"
    )


def plan_only(manifest: Manifest, settings: Settings) -> Plan:
    """Plan without a lock and without a trace: what a run would do now.

    Raises:
        StateError: there is a state, and it cannot be read.
        UsageError: as for `open_planned_run`.
    """
    check_selection(manifest, settings)
    hold = _held_by_plan(settings)
    with peek(settings.output_dir, sandbox=settings.sandbox) as database:
        known = {} if database is None else database.known()
        plan, _ = _plan(manifest, settings, known, database, hold, SystemClock().now())
        for _, item in plan.decisions.kept():
            if database is not None and item.before is not None and item.job is not None:
                before = database.attempt(item.before)
                options = compare(before.request, item.job.request)
                plan.changed[item.job_id] = Changed(options, before.cost_usd)
        return plan


def check_selection(manifest: Manifest, settings: Settings) -> None:
    """Check the patterns before the folder is made or locked.

    Raises:
        UsageError: one matches no job of the manifest.
    """

    def known_ids() -> Collection[str]:
        with peek(settings.output_dir, sandbox=settings.sandbox) as database:
            return () if database is None else database.known().keys()

    settings.policy.selection.check(manifest.jobs, known_ids)


def _plan(  # noqa: PLR0917 - all of them are asked for
    manifest: Manifest,
    settings: Settings,
    known: History,
    database: Store | None,
    hold: Hold,
    now: float,
) -> tuple[Plan, Presence]:
    in_bucket = {} if database is None else away(database, settings.target)
    presence = Presence(settings.output_dir, database, in_bucket, known)
    plan = make_plan(
        manifest.jobs,
        known,
        policy=settings.policy,
        is_present=presence,
        price=estimator(manifest.prices),
        forced={} if database is None else database.forced(),
        now=now,
    )
    hold(plan)
    return plan, presence


def _held_by_plan(settings: Settings) -> Hold:
    """Return what holds back the jobs that a saved plan does not cover.

    Raises:
        UsageError: the saved plan cannot be used.
    """
    if settings.plan is None:
        return lambda _plan: None
    from batch.plan.saved import hold  # noqa: PLC0415 - only with --plan
    from batch.run.approved import saved_plan  # noqa: PLC0415

    return partial(hold, saved=saved_plan(settings.plan, settings))
