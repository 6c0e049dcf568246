"""Where the library of a simulated night is at home: in a state.db, or in Postgres (`postgres_home`)."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Protocol

from batch.output.sqlite import Database
from batch.output.store import Store


class Home(Protocol):
    """The state of the library at *root*, as whoever looks on reads it."""

    def has_state(self, root: Path) -> bool:
        """Return whether a state was ever made there."""
        ...

    def reading(self, root: Path) -> AbstractContextManager[Store]:
        """Open it to read."""
        ...

    def back_up(self) -> None:
        """Copy what is not in the folder, while that is copied."""
        ...

    def bring_back(self) -> None:
        """Bring that copy back, once the folder's is."""
        ...


class FolderHome:
    """The state.db of the folder."""

    def has_state(self, root: Path) -> bool:
        return (root / ".kling-batch/state.db").exists()

    @contextmanager
    def reading(self, root: Path) -> Iterator[Store]:
        with Database.open_to_read(root / ".kling-batch/state.db") as database:
            yield database

    def back_up(self) -> None:
        return None

    def bring_back(self) -> None:
        return None
