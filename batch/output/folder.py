"""An output folder during a run: the lock, the database, the results file."""

from __future__ import annotations

import hashlib
import uuid
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import field
from pathlib import Path

from batch.attempt import RETENTION_S
from batch.errors import UsageError
from batch.frozen import frozen
from batch.output import stores
from batch.output.layout import Layout
from batch.output.names import clear_noted
from batch.output.results import ResultsFile
from batch.output.seen import Seen
from batch.output.state import FORGOT_AT, Fact
from batch.output.store import Store

ORIGIN = "origin"  # the fact that names the maker of the folder's videos
SANDBOX, PROVIDER = "sandbox", "provider"
OLDER = (
    "the state does not know the latest run that this machine has seen of this library, or not its end (a"
    " restored backup, or a copy that was run?)"
)
LOOKED_UP = (
    f"for {RETENTION_S / 86400:.0f} days, each new request is looked up before it is submitted: what the"
    " state has forgotten is taken over"
)
LIBRARY = "library"  # the fact that tells this library from others: its attempts are named by it


@frozen
class OutputFolder:
    """An output folder that no other run can change.

    *library* is its own id, which copies share. *forgot_at* is when its state was found to be older
    than its results, or than what this machine has *seen* of the library. Just now, *forgotten* rows
    were found missing, and whether it *is_older* than was seen.
    """

    layout: Layout
    database: Store
    results: ResultsFile
    library: str
    forgot_at: float | None = None
    forgotten: int = 0
    is_older: bool = False
    seen: Seen = field(default_factory=Seen)

    @property
    def warnings(self) -> tuple[str, ...]:
        """What to tell a person of a state that was found to be older, if it was."""
        if not self.forgotten:
            return (f"{OLDER}; {LOOKED_UP}",) if self.is_older else ()
        count = self.forgotten
        rows = "1 row that it lacked was" if count == 1 else f"{count} rows that it lacked were"
        told = (
            f"the state is older than results.jsonl (a restored backup?): {rows} taken over from there;"
            " what else it may have forgotten is looked up before it is submitted"
        )
        return (told,)


@contextmanager
def open_folder(
    root: Path, *, sandbox: bool, now: float, state_folder: Path | None = None
) -> Iterator[OutputFolder]:
    """Lock the folder, create or migrate its database, repair its results file.

    A database that is older than the results (a restored backup) takes in what these know more. One
    that is older than what the user's *state_folder* has seen is suspected from now on. The second
    names of videos that a move has left are unlinked.

    Raises:
        LockedError: another run holds the folder.
        StateError: the folder or the database cannot be used.
        UsageError: the folder holds videos of the sandbox and this is a real run, or the reverse.
    """
    layout = Layout(root)
    with ExitStack() as exits:
        if not stores.has_state(root):
            stores.check_history(None, layout)
        database = exits.enter_context(stores.hold(root, is_local=sandbox))
        stores.check_history(database, layout)
        _check_origin(database, root, sandbox=sandbox)
        library = name_library(database, sandbox=sandbox)
        results = ResultsFile(layout.results)
        forgotten = results.unknown(database)
        if forgotten:
            results.recall(forgotten, database, now)
        seen = Seen.of(library, state_folder)
        is_behind = seen.is_ahead_of(database)
        if is_behind:
            database.write([Fact(FORGOT_AT, repr(now))])
        results.repair(database)
        with suppress(OSError):  # they stay noted, and a run that moves videos says why
            clear_noted(root, database)
        forgot_at = database.fact(FORGOT_AT)
        yield OutputFolder(
            layout,
            database,
            results,
            library,
            forgot_at=None if forgot_at is None else float(forgot_at),
            forgotten=len(forgotten),
            is_older=is_behind,
            seen=seen,
        )


def is_older(database: Store, state_folder: Path) -> bool:
    """Return whether a state is older than what the user's *state_folder* has seen of it."""
    return Seen.of(database.fact(LIBRARY), state_folder).is_ahead_of(database)


@contextmanager
def peek(root: Path, *, sandbox: bool) -> Iterator[Store | None]:
    """Open the database of a folder read-only, without a lock or a trace; None if there is none.

    Raises:
        StateError: it cannot be read.
        UsageError: as for `open_folder`.
    """
    layout = Layout(root)
    if not stores.has_state(root):
        stores.check_history(None, layout)
        yield None
        return
    with stores.open_to_read(root) as database:
        _check_origin(database, root, sandbox=sandbox)
        results = ResultsFile(layout.results)
        forgotten = results.unknown(database)
        if not forgotten:
            yield database
            return
        with stores.in_memory(database) as copy:
            results.recall(forgotten, copy, 0.0)
            yield copy


def name_library(database: Store, *, sandbox: bool) -> str:
    """Record once whose videos the folder holds and its own id; return the id.

    The id of a state from before there were any follows from that state's first run: should a backup
    of that time be restored, it gets the same one again.
    """
    library = database.fact(LIBRARY)
    if library is None:
        first = database.first_run()
        library = database.library or uuid.uuid4().hex
        if database.library is None and first is not None:
            library = hashlib.sha256(first.encode()).hexdigest()[:32]
        origin = SANDBOX if sandbox else PROVIDER
        database.write([Fact(ORIGIN, origin), Fact(LIBRARY, library)])
        database.checkpoint()  # also a copy of the database without its log has the id
    return library


def _check_origin(database: Store, root: Path, *, sandbox: bool) -> None:
    """Refuse to mix the sandbox's videos with real ones: they must not count as up to date."""
    mine = SANDBOX if sandbox else PROVIDER
    theirs = database.fact(ORIGIN)
    if theirs not in {None, mine}:
        made = "the sandbox" if theirs == SANDBOX else "the real API"
        raise UsageError(
            f"{root} holds videos of {made}; choose another folder with --output-dir,"
            " or delete that one if you do not need it"
        )
