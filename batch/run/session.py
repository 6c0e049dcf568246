"""Opening an output folder for a run: the lock, the state, the plan, and the summary at the end.

Light on purpose: a night on which nothing is to be done needs no more than this.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from batch.clock import Clock
from batch.errors import ExitCode, StateError, UsageError
from batch.job import STATE_FOLDER, Job
from batch.manifest.model import Manifest
from batch.output import lock
from batch.output.changes import Fact, RunEnded, RunStarted
from batch.output.results_file import ResultsFile
from batch.output.sqlite import Known, Store
from batch.plan import Plan, make_plan
from batch.prices import estimate
from batch.settings import Settings

SUMMARY_SCHEMA = 1
TROUBLES_SHOWN = 1000
ORIGIN = "origin"  # the fact that tells whose videos a folder holds
SANDBOX, PROVIDER = "sandbox", "provider"


@dataclass(frozen=True, slots=True)
class Summary:
    """What a run came to. `to_json` is what `--json` prints."""

    run_id: str
    name: str
    output_dir: str
    exit_code: ExitCode
    planned: dict[str, int]
    outcomes: dict[str, int] = field(default_factory=dict)
    tasks_created: int = 0
    adopted: int = 0
    superseded: int = 0
    cost_usd: float = 0.0
    left: int = 0
    seconds: float = 0.0
    stopped: str | None = None
    troubles: tuple[dict[str, Any], ...] = ()
    resting: tuple[tuple[str, str], ...] = ()
    bugs: tuple[str, ...] = ()

    def to_json(self) -> dict[str, Any]:
        """Return the summary as plain JSON values."""
        return {
            "schema": SUMMARY_SCHEMA,
            **asdict(self),
            "exit_code": int(self.exit_code),
            "troubles": [
                {key: row[key] for key in ("job_id", "status", "task_id", "error")}
                for row in self.troubles[:TROUBLES_SHOWN]
            ],
            "resting": [{"job_id": job_id, "reason": reason} for job_id, reason in self.resting],
            "bugs": len(self.bugs),
        }


@dataclass(frozen=True, slots=True)
class Session:
    """An output folder that is ours for the time of a run, and what is to be done in it."""

    manifest: Manifest
    settings: Settings
    run_id: str
    store: Store
    results: ResultsFile
    plan: Plan
    started_at: float

    def summary(self, exit_code: ExitCode, **found: Any) -> Summary:
        """Make the summary of this session's run."""
        plan = self.plan
        return Summary(
            run_id=self.run_id,
            name=self.manifest.name,
            output_dir=str(self.settings.output_dir),
            exit_code=exit_code,
            planned={action.value: count for action, count in plan.counts.items()},
            resting=tuple((item.job_id, item.reason) for item in plan.resting),
            **found,
        )


@contextmanager
def open_session(manifest: Manifest, settings: Settings, clock: Clock) -> Iterator[Session]:
    """Lock the output folder, open (or make) its state, mend its results file, and plan.

    Raises:
        LockedError: another run holds the folder.
        StateError: the folder or the state cannot be used.
        UsageError: the folder holds videos of the sandbox and this is a real run, or the reverse.
    """
    with _open_folder(settings) as (store, results):
        run_id = _new_run_id(clock)
        started_at = clock.now()
        plan = _plan(manifest, settings, store.known())
        yield Session(manifest, settings, run_id, store, results, plan, started_at)


@contextmanager
def _open_folder(settings: Settings) -> Iterator[tuple[Store, ResultsFile]]:
    root = settings.output_dir
    state = root / STATE_FOLDER
    with ExitStack() as exits:
        exits.enter_context(lock.hold(state / "lock"))
        store = exits.enter_context(Store.open(state / "state.db"))
        _check_history(store, root)
        _check_origin(store, settings)
        results = ResultsFile(root / "results.jsonl")
        results.mend(store)
        yield store, results


def begin(session: Session) -> None:
    """Note that the run has begun."""
    session.store.write([RunStarted(session.run_id, session.started_at)])


def close_session(session: Session, exit_code: ExitCode, clock: Clock) -> None:
    """Note how the run ended; from then on the size of results.jsonl tells whether it is whole."""
    session.results.flush()
    session.store.write([RunEnded(session.run_id, clock.now(), int(exit_code))])


def plan_only(manifest: Manifest, settings: Settings) -> Plan:
    """Plan without a lock and without a trace: what a run would do now.

    Raises:
        StateError: there is a state, and it cannot be read.
        UsageError: as for `open_session`.
    """
    path = settings.output_dir / STATE_FOLDER / "state.db"
    if not path.exists():
        _check_history(None, settings.output_dir)
        return _plan(manifest, settings, {})
    with Store.open_to_read(path) as store:
        _check_history(store, settings.output_dir)
        _check_origin(store, settings, remember=False)
        ResultsFile(settings.output_dir / "results.jsonl").check(store)
        return _plan(manifest, settings, store.known())


def price_of(manifest: Manifest) -> Callable[[Job], tuple[float, bool]]:
    """Return the estimator of one job in USD; its second value tells whether the price is known."""

    def price(job: Job) -> tuple[float, bool]:
        found = estimate(job.body(), manifest.prices)
        return found.usd, found.known

    return price


def _plan(manifest: Manifest, settings: Settings, known: dict[str, list[Known]]) -> Plan:
    return make_plan(
        manifest.jobs,
        known,
        policy=settings.policy,
        is_present=_presence(settings, known),
        price=price_of(manifest),
    )


def _presence(settings: Settings, known: dict[str, list[Known]]) -> Callable[[str, int], bool]:
    root = os.fspath(settings.output_dir)
    landed_at = {item.file: item.landed_at for items in known.values() for item in items}

    def is_present(file: str, size: int) -> bool:
        try:
            status = os.stat(f"{root}/{file}")  # noqa: PTH116 - a third of pathlib's time
            if status.st_size != size:
                return False
            # Somebody has written to it since: its size alone says nothing any more. What was left
            # alone is not opened, since a quiet night looks at every video.
            return status.st_mtime <= (landed_at[file] or 0.0) or _is_video(Path(root, file))
        except OSError:
            return False

    return is_present


def _is_video(path: Path) -> bool:
    from batch.media.check import MediaError, inspect  # noqa: PLC0415 - on most nights for no file

    try:
        inspect(path)
    except MediaError:
        return False
    return True


def _check_history(store: Store | None, root: Path) -> None:
    """Results without the state that they came from: to go on would pay for everything again."""
    results = root / "results.jsonl"
    if (store is None or store.is_new) and results.exists() and results.stat().st_size:
        raise StateError(
            f"{results} tells of earlier runs, but their state in {root / STATE_FOLDER} is gone or"
            " empty; nothing was sent. Restore the state from a backup; or, to begin anew and pay for"
            " everything again, move results.jsonl away"
        )


def _check_origin(store: Store, settings: Settings, *, remember: bool = True) -> None:
    """The sandbox's videos are no product: they must never pass for up to date."""
    mine = SANDBOX if settings.sandbox else PROVIDER
    theirs = store.fact(ORIGIN)
    if theirs is None:
        if remember:
            store.write([Fact(ORIGIN, mine)])
    elif theirs != mine:
        made = "the sandbox" if theirs == SANDBOX else "the real API"
        raise UsageError(
            f"{settings.output_dir} holds videos of {made}; choose another folder with --output-dir,"
            " or delete that one if you do not need it"
        )


def _new_run_id(clock: Clock) -> str:
    time = datetime.fromtimestamp(clock.now(), UTC).strftime("%Y%m%dT%H%M%SZ")
    return f"{time}-{os.urandom(3).hex()}"


def quiet_night(session: Session, clock: Clock) -> Summary:
    """End a session in which nothing is to be done."""
    exit_code = ExitCode.JOBS_FAILED if session.plan.resting else ExitCode.OK
    session.store.write(
        [
            RunStarted(session.run_id, session.started_at),
            RunEnded(session.run_id, clock.now(), int(exit_code)),
        ]
    )
    return session.summary(exit_code)
