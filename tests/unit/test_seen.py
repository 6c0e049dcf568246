"""What this machine has seen of a library: a state that is older is noticed, and nothing else is."""

from __future__ import annotations

import os
import shutil
import sys
from contextlib import AbstractContextManager
from pathlib import Path

import pytest

from batch.output.folder import LOOKED_UP, OLDER, OutputFolder, open_folder
from batch.output.seen import Seen
from batch.output.state import BeginRun, EndRun, Fact

NOW = 9.0


class Machine:
    """Opens folders as the runs of one user do."""

    def __init__(self, folder: Path) -> None:
        self.root, self.home = folder / "loops", folder / "home"

    def begin(self, run_id: str, root: Path | None = None) -> OutputFolder:
        """Begin a run, die before the mark of it, and return what was found."""
        with self.open(root) as folder:
            folder.database.write([BeginRun(run_id, 1.0)])
        return folder

    def run(self, run_id: str, root: Path | None = None) -> OutputFolder:
        """Run to the end, and return what was found before."""
        folder = self.begin(run_id, root)
        folder.seen.note(run_id, has_ended=False)
        self.end(run_id, root).seen.note(run_id, has_ended=True)
        return folder

    def end(self, run_id: str, root: Path | None = None) -> OutputFolder:
        """End a run, and die before the mark of that."""
        with self.open(root) as folder:
            folder.database.write([EndRun(run_id, 2.0, 0)])
        return folder

    def open(
        self, root: Path | None = None, now: float = NOW
    ) -> AbstractContextManager[OutputFolder]:
        """Hold a folder: that of the library, or a copy."""
        root = root or self.root
        return open_folder(root, sandbox=False, now=now, state_folder=self.home)

    def look(self, root: Path | None = None, now: float = NOW) -> OutputFolder:
        """Open the folder, and nothing more."""
        with self.open(root, now) as folder:
            return folder

    @property
    def mark(self) -> Path:
        """The file of the one library."""
        (found,) = (self.home / "libraries").iterdir()
        return found


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    """Give a machine that has seen two runs, the second after a backup of the folder."""
    machine = Machine(tmp_path)
    machine.run("r-1")
    shutil.copytree(machine.root, tmp_path / "backup")
    machine.run("r-2")
    return machine


def restore(machine: Machine) -> None:
    shutil.rmtree(machine.root)
    shutil.copytree(machine.root.with_name("backup"), machine.root)


def test_restored_folder_is_suspected_and_told_of(machine: Machine) -> None:
    restore(machine)
    folder = machine.look()
    assert folder.is_older
    assert folder.forgot_at == NOW
    assert folder.warnings == (f"{OLDER}; {LOOKED_UP}",)


def test_suspicion_outlives_the_finding(machine: Machine) -> None:
    """It is found until a run has begun; then the state alone knows of it."""
    restore(machine)
    machine.look()
    assert machine.begin("r-3").is_older
    machine.run("r-4")
    folder = machine.look(now=NOW + 1.0)
    assert not folder.is_older
    assert folder.forgot_at == NOW
    restore(machine)  # once more
    assert machine.look().is_older


def test_state_that_knows_what_was_seen_is_trusted(machine: Machine) -> None:
    folder = machine.look()
    assert (folder.is_older, folder.forgot_at, folder.warnings) == (False, None, ())


@pytest.mark.parametrize("has_ended", [False, True])
def test_death_before_the_mark_is_no_alarm(machine: Machine, has_ended: bool) -> None:
    """The mark is older then: of the run before, or of the begin."""
    if has_ended:
        machine.begin("r-3").seen.note("r-3", has_ended=False)
        machine.end("r-3")
    else:
        machine.begin("r-3")
    assert not machine.look().is_older
    assert machine.look().forgot_at is None


def test_run_that_was_killed_is_no_alarm(machine: Machine) -> None:
    machine.begin("r-3").seen.note("r-3", has_ended=False)
    assert not machine.look().is_older


def test_state_from_the_midst_of_a_run_that_has_ended_is_older(machine: Machine) -> None:
    machine.begin("r-3")
    shutil.rmtree(machine.root.with_name("backup"))
    shutil.copytree(machine.root, machine.root.with_name("backup"))
    machine.end("r-3").seen.note("r-3", has_ended=True)
    restore(machine)
    assert machine.look().is_older


def test_runs_of_another_machine_are_no_alarm(machine: Machine, tmp_path: Path) -> None:
    other = Machine(tmp_path)
    other.home = tmp_path / "other"
    assert not other.run("r-3").is_older
    assert not machine.look().is_older


def test_copies_suspect_each_other_and_go_on(machine: Machine) -> None:
    copy = machine.root.with_name("backup")
    assert machine.run("c-1", copy).is_older
    assert machine.run("r-3").is_older
    assert machine.run("c-2", copy).is_older
    assert not machine.look(copy).is_older


def test_library_without_a_state_folder_has_no_mark(tmp_path: Path) -> None:
    with open_folder(tmp_path / "loops", sandbox=False, now=NOW) as folder:
        folder.seen.note("r-1", has_ended=True)
    assert folder.seen == Seen()
    assert not list(tmp_path.rglob("libraries"))


def broken(path: Path, how: str) -> None:
    """Put something else in the place of a mark."""
    torn = {"empty": b"", "torn": b"r-9 ended", "cut": b"r-9", "zeros": b"\0" * 20}
    more = {
        "more": b"r-9 ended\nr-9 ended\n",
        "huge": b"r" * 10**7,
        "long": b"r" * 150 + b" ended\n",
    }
    path.unlink()
    match how:
        case "folder":
            path.mkdir()
        case "link":
            other = path.with_name("other")
            other.write_bytes(b"r-9 ended\n")
            path.symlink_to(other)
        case "dangling":
            path.symlink_to("nowhere")
        case "pipe":
            os.mkfifo(path)
        case _:
            path.write_bytes((torn | more)[how])


HOWS = [
    "empty",
    "torn",
    "cut",
    "zeros",
    "more",
    "huge",
    "long",
    "folder",
    "link",
    "dangling",
    "pipe",
]


@pytest.mark.skipif(sys.platform == "win32", reason="has no pipes, and links only for some")
@pytest.mark.parametrize("how", HOWS)
def test_what_is_no_mark_is_ignored(machine: Machine, how: str) -> None:
    mark = machine.mark
    broken(mark, how)
    assert not machine.look().is_older
    machine.run("r-3")
    assert mark.is_dir() or mark.read_bytes() == b"r-3 ended\n"
    if how == "link":  # nothing was written through it
        assert mark.with_name("other").read_bytes() == b"r-9 ended\n"


def test_mark_that_is_no_text_is_of_no_known_run(machine: Machine) -> None:
    """It looks like one, and costs look-ups."""
    machine.mark.write_bytes(b"\xff\xfe ended\n")
    assert machine.look().is_older


@pytest.mark.parametrize("name", ["home", "home/libraries"])
def test_state_folder_that_cannot_be_written_is_no_failure(tmp_path: Path, name: str) -> None:
    machine = Machine(tmp_path)
    (tmp_path / name).parent.mkdir(exist_ok=True)
    (tmp_path / name).write_bytes(b"")
    machine.run("r-1")
    assert not machine.look().is_older


@pytest.mark.parametrize("library", ["../out", "a/b", "", "a" * 65, "x.new", None])
def test_id_that_is_no_name_has_no_mark(tmp_path: Path, library: str | None) -> None:
    assert Seen.of(library, tmp_path) == Seen()


def test_odd_id_of_a_foreign_state_writes_nowhere(tmp_path: Path) -> None:
    machine = Machine(tmp_path)
    with machine.open() as folder:
        folder.database.write([Fact("library", "../../out")])
    machine.run("r-1")
    assert not machine.home.exists()
