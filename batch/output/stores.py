"""Where the state of an output folder is: in its state.db, or in the Postgres of a fleet.

    state.db   .kling-batch/library   the state is
    no         no                     nowhere yet: made in Postgres if an engine is set
    yes        no                     in state.db; with an engine, nothing changes it until `engine import`
    no         yes                    in Postgres; without an engine, nothing can be said about it
    yes        yes                    on its way: `engine import` or `engine export` was cut short

psycopg is imported only for a folder whose state is in Postgres.
"""

from __future__ import annotations

import os
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from pathlib import Path

from batch.errors import StateError, StateLostError
from batch.key import ENGINE_VARIABLE, Secret, find_engine
from batch.output import lock
from batch.output.layout import Layout
from batch.output.lock import Holder
from batch.output.marker import library_at
from batch.output.sqlite import Database
from batch.output.store import Store

_GIVEN: ContextVar[Secret | None] = ContextVar("engine", default=None)


def use_engine(engine: Secret | None) -> None:
    """From now on find folders of a fleet in that Postgres; None: in the environment's."""
    _GIVEN.set(engine)


def current_engine() -> Secret:
    """Return the address of the fleet's Postgres; empty without one."""
    given = _GIVEN.get()
    return find_engine(os.environ, None) if given is None else given


def has_state(root: Path) -> bool:
    """Return whether *root* is an output folder."""
    layout = Layout(root)
    return layout.database.exists() or layout.library.exists()


def is_known(root: Path) -> bool:
    """Return whether *root* has a state that says anything: an emptied file is none.

    Raises:
        StateError: it cannot be read.
    """
    layout = Layout(root)
    if layout.library.exists() or not layout.database.exists():
        return layout.library.exists()
    with Database.open_to_read(layout.database) as database:
        return not database.is_new


def check_history(database: Store | None, layout: Layout) -> None:
    """Refuse results without their state: all of them would be paid for again."""
    results = layout.results
    if (database is None or database.is_new) and results.exists() and results.stat().st_size:
        raise StateLostError(
            f"{results} holds rows of earlier runs, but their state in {layout.state} is gone or"
            " empty; nothing was sent. Restore the state from a backup; or, to start from nothing and"
            " pay for everything again, move results.jsonl away"
        )


@contextmanager
def open_to_read(root: Path) -> Iterator[Store]:
    """Open an existing state, also while a run changes it. Changes nothing.

    Raises:
        StateError: there is none, it cannot be read, or it is empty beside results.
    """
    layout = Layout(root)
    library = _library(layout)
    if library is None:
        with Database.open_to_read(layout.database) as database:
            check_history(database, layout)
            yield database
        return
    from batch.output.postgres.libraries import read  # noqa: PLC0415 - only of a fleet

    with read(_engine_for(root), library, layout) as found:
        check_history(found, layout)
        yield found


@contextmanager
def hold(root: Path, *, is_local: bool = False) -> Iterator[Store]:
    """Hold the folder, and open its state or make one.

    Args:
        root: the folder.
        is_local: a state that is not in Postgres is none of the fleet's, whatever engine is set.

    Raises:
        LockedError: another run holds it, or has not ended.
        StateError: the state cannot be used, or is elsewhere.
    """
    layout = Layout(root)
    library = _library(layout)
    if library is None and (is_local or not current_engine()):
        with lock.hold(layout.lock), Database.open(layout.database) as database:
            yield database
        return
    if library is None and layout.database.exists():
        raise StateError(
            f"the state of {root} is in {layout.database}, and {ENGINE_VARIABLE} is set; `kling-batch"
            f" engine import {root}` moves it into Postgres. Nothing was sent"
        )
    from batch.output.postgres.libraries import hold as hold_library  # noqa: PLC0415 - as above
    from batch.output.postgres.libraries import new  # noqa: PLC0415

    engine = _engine_for(root)
    with hold_library(engine, library or new(engine, uuid.uuid4().hex, layout), layout) as found:
        yield found


def holder(root: Path) -> Holder | None:
    """Return who changes the state of an output folder; None if nobody does.

    Raises:
        StateError: its state is in Postgres, which does not answer.
    """
    layout = Layout(root)
    library = _library(layout)
    if library is None:
        return lock.holder(layout.lock)
    from batch.output.postgres.libraries import holder as holder_of  # noqa: PLC0415 - as above

    return holder_of(_engine_for(root), library)


@contextmanager
def in_memory(store: Store) -> Iterator[Store]:
    """Make a copy in memory whose changes are not kept."""
    if isinstance(store, Database):
        with store.in_memory() as copy:
            yield copy
        return
    from batch.output.postgres.libraries import copy_of  # noqa: PLC0415 - as above

    with copy_of(store) as copy:
        yield copy


def _library(layout: Layout) -> str | None:
    """Return the library that Postgres has of a folder.

    Raises:
        StateError: it is on its way.
    """
    library = library_at(layout.library)
    if library is not None and layout.database.exists():
        raise StateError(
            f"the state of {layout.root} is on its way between {layout.database} and Postgres, and"
            f" was cut short there; run `kling-batch engine import {layout.root}` or `kling-batch"
            f" engine export {layout.root}` once more. Nothing was sent"
        )
    return library


def _engine_for(root: Path) -> Secret:
    engine = current_engine()
    if not engine:
        raise StateError(
            f"the state of {root} is in the Postgres of a fleet; set {ENGINE_VARIABLE} to its address,"
            f" or bring the state back with `kling-batch engine export {root}`. Nothing was sent"
        )
    return engine
