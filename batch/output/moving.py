"""A folder's state moves into Postgres, and back. A move that was cut short is done by doing it again.

The column `lives_here` says which of the two is the truth while there are both:

    import                               truth       export                               truth
    copy into Postgres                   state.db    copy into a part file                Postgres
    mark the folder                      state.db    rename it to state.db                Postgres
    rename state.db                      Postgres    say that Postgres is not the truth   state.db
    say that Postgres is the truth       Postgres    take the mark away                   state.db
                                                     delete what Postgres has             state.db

A folder with a mark and a state.db is used by no other command.
"""

from __future__ import annotations

from pathlib import Path

from batch.errors import StateError, UsageError
from batch.key import Secret
from batch.output import disk, lock
from batch.output.folder import ORIGIN, SANDBOX, name_library
from batch.output.layout import STATE_FOLDER, Layout, stamp
from batch.output.marker import copied, library_at, mark, unmark
from batch.output.postgres.home import Home
from batch.output.sqlite import Database


def bring_in(root: Path, engine: Secret, now: float) -> Path | None:
    """Move the state of a folder into Postgres; return where its state.db lies now.

    None if it was there already.

    Raises:
        LockedError: a run holds the folder.
        StateError: one of the two cannot be used.
        UsageError: it is not an output folder, its videos are the sandbox's, or it is a copy of one
            whose state is in Postgres.
    """
    layout = Layout(root)
    library = library_at(layout.library)
    if not layout.database.exists():
        if library is None:
            raise not_a_folder(root)
        with Home.open(engine, library, layout) as home:
            home.settle()
        return None
    with lock.hold(layout.lock):
        name = _name_of(layout)
        if library not in {None, name}:
            raise StateError(
                f"{layout.library} and {layout.database} are of two libraries; move away the one that"
                " does not belong there"
            )
        with Home.open(engine, name, layout, is_new=True) as home:
            if not home.is_truth:
                with Database.open(layout.database) as database:
                    home.take(database, str(root.resolve()))
            elif library is None and home.root != str(root.resolve()):
                raise copied(root, Layout(Path(home.root)).library)
            mark(layout.library, name)
            aside = _set_aside(layout, now)
            home.settle()
    return aside


def bring_back(root: Path, engine: Secret) -> bool:
    """Move the state of a folder from Postgres into its state.db; False if it was there already.

    Raises:
        LockedError: a run holds the library, or has not ended.
        StateError: one of the two cannot be used.
        UsageError: it is not an output folder.
    """
    layout = Layout(root)
    library = library_at(layout.library)
    if library is None:
        if not layout.database.exists():
            raise not_a_folder(root)
        return False
    with lock.hold(layout.lock), Home.open(engine, library, layout) as home:
        home.fence()
        if home.is_truth or not layout.database.exists():
            part = layout.state / "state.db.part"
            _remove(part)
            with Database.open(part) as database:
                home.give(database)
                database.checkpoint()
            _remove(layout.database)
            _rename(part, layout.database)
        home.retire()
        unmark(layout.library)
        home.delete()
    return True


def not_a_folder(root: Path) -> UsageError:
    """Return the error of a folder without a state."""
    return UsageError(f"{root} is not an output folder: it has no {STATE_FOLDER}/state.db")


def _name_of(layout: Layout) -> str:
    """Return the library of a state.db, which is brought up to date, with its log in it."""
    with Database.open(layout.database) as database:
        if database.fact(ORIGIN) == SANDBOX:
            raise UsageError(
                f"{layout.root} holds videos of the sandbox, which only this machine reaches; its state"
                " stays here"
            )
        name = name_library(database, sandbox=False)
        database.checkpoint()
    log = layout.database.with_name("state.db-wal")
    if log.exists() and log.stat().st_size:
        raise StateError(f"{layout.database} is open in another program; close it and run again")
    return name


def _set_aside(layout: Layout, now: float) -> Path:
    """Rename state.db, so that a run without the engine does not go on with it."""
    aside = layout.state / f"state.db.imported-{stamp(now)}"
    _rename(layout.database, aside)
    return aside


def _rename(source: Path, target: Path) -> None:
    try:
        disk.move(source, target)
        disk.flush(target.parent)
    except OSError as error:
        raise StateError(f"{target} cannot be written: {error.strerror or error}") from error


def _remove(database: Path) -> None:
    """Remove a database that Postgres knows better, and its log."""
    for end in ("", "-wal", "-shm"):
        database.with_name(f"{database.name}{end}").unlink(missing_ok=True)
