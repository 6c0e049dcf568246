"""An output folder that is ours for the time of a run: the lock, the state, the results file."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from batch.errors import StateError, UsageError
from batch.output import lock
from batch.output.layout import Layout
from batch.output.results import ResultsFile
from batch.output.sqlite import Database
from batch.output.state import Fact

ORIGIN = "origin"  # the fact that tells whose videos a folder holds
SANDBOX, PROVIDER = "sandbox", "provider"


@dataclass(frozen=True, slots=True)
class OutputFolder:
    """An output folder that no other run can change."""

    layout: Layout
    database: Database
    results: ResultsFile


@contextmanager
def open_folder(root: Path, *, sandbox: bool) -> Iterator[OutputFolder]:
    """Lock the folder, open its state (make it, or migrate it), mend its results file.

    Raises:
        LockedError: another run holds the folder.
        StateError: the folder or the state cannot be used.
        UsageError: the folder holds videos of the sandbox and this is a real run, or the reverse.
    """
    layout = Layout(root)
    with ExitStack() as exits:
        exits.enter_context(lock.hold(layout.lock))
        database = exits.enter_context(Database.open(layout.database))
        _check_history(database, layout)
        _check_origin(database, root, sandbox=sandbox)
        if database.fact(ORIGIN) is None:
            database.write([Fact(ORIGIN, SANDBOX if sandbox else PROVIDER)])
        results = ResultsFile(layout.results)
        results.mend(database)
        yield OutputFolder(layout, database, results)


@contextmanager
def peek(root: Path, *, sandbox: bool) -> Iterator[Database | None]:
    """Open the state of a folder to read, without a lock and without a trace; None if there is none.

    Raises:
        StateError: there is a state, and it cannot be read.
        UsageError: as for `open_folder`.
    """
    layout = Layout(root)
    if not layout.database.exists():
        _check_history(None, layout)
        yield None
        return
    with Database.open_to_read(layout.database) as database:
        _check_history(database, layout)
        _check_origin(database, root, sandbox=sandbox)
        ResultsFile(layout.results).check(database)
        yield database


def _check_history(database: Database | None, layout: Layout) -> None:
    """Refuse results without the state behind them: all of them would be paid for again."""
    results = layout.results
    if (database is None or database.is_new) and results.exists() and results.stat().st_size:
        raise StateError(
            f"{results} tells of earlier runs, but their state in {layout.state} is gone or"
            " empty; nothing was sent. Restore the state from a backup; or, to begin anew and pay for"
            " everything again, move results.jsonl away"
        )


def _check_origin(database: Database, root: Path, *, sandbox: bool) -> None:
    """Refuse to mix the sandbox's videos with real ones: they must never pass for up to date."""
    mine = SANDBOX if sandbox else PROVIDER
    theirs = database.fact(ORIGIN)
    if theirs not in {None, mine}:
        made = "the sandbox" if theirs == SANDBOX else "the real API"
        raise UsageError(
            f"{root} holds videos of {made}; choose another folder with --output-dir,"
            " or delete that one if you do not need it"
        )
