"""The output folder: its library has an id of its own, which a restored state keeps."""

from __future__ import annotations

import shutil
from pathlib import Path

from batch.output.folder import open_folder
from batch.output.layout import Layout
from batch.output.sqlite import Database
from batch.output.state import BeginRun, Fact


def library(root: Path) -> str:
    with open_folder(root, sandbox=False, now=5.0) as folder:
        return folder.library


def test_library_id_is_made_once(tmp_path: Path) -> None:
    first = library(tmp_path / "a")
    assert len(first) == 32
    assert library(tmp_path / "a") == first
    assert library(tmp_path / "b") != first


def test_copy_of_state_without_its_log_has_the_id(tmp_path: Path) -> None:
    with open_folder(tmp_path / "a", sandbox=False, now=5.0) as folder:
        folder.database.write([BeginRun("r", 1.0)])
        copy = Layout(tmp_path / "b")
        copy.state.mkdir(parents=True)
        shutil.copy(folder.layout.database, copy.database)
        mine = folder.library
    assert library(tmp_path / "b") == mine


def test_state_of_older_release_gets_one_id(tmp_path: Path) -> None:
    """Also after its backup of before the upgrade was restored."""
    layout = Layout(tmp_path)
    layout.state.mkdir()
    with Database.open(layout.database) as database:
        database.write([Fact("origin", "provider"), BeginRun("r1", 1.0), BeginRun("r2", 2.0)])
    backup = layout.database.read_bytes()
    first = library(tmp_path)
    layout.database.write_bytes(backup)
    assert library(tmp_path) == first
