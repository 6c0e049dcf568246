"""One run per folder: the second reports the holder, and a dead holder does not block."""

from __future__ import annotations

import errno
import fcntl
import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from batch.errors import LockedError, StateError
from batch.output.lock import hold, holder

HOLD = """
import sys, time
from pathlib import Path
from batch.output.lock import hold
with hold(Path(sys.argv[1])):
    print("held", flush=True)
    sys.stdin.read()
"""


def test_second_run_names_the_holder(tmp_path: Path) -> None:
    path = tmp_path / ".kling-batch/lock"
    with hold(path):
        with pytest.raises(LockedError, match=f"process {os.getpid()} on "):
            hold(path).__enter__()
        assert f"process {os.getpid()}" in str(holder(path))
    assert holder(path) is None


def test_deleted_lock_file_is_still_a_lock(tmp_path: Path) -> None:
    """Users delete it when a run reports that another one holds the folder."""
    path = tmp_path / ".kling-batch/lock"
    with hold(path):
        path.unlink()
        with pytest.raises(LockedError):
            hold(path).__enter__()
        assert holder(path) is not None
    assert holder(path) is None


def test_released_lock_is_free(tmp_path: Path) -> None:
    path = tmp_path / "lock"
    with hold(path):
        pass
    with hold(path):
        pass


def test_missing_lock_has_no_holder(tmp_path: Path) -> None:
    assert holder(tmp_path / "lock") is None


def test_killed_holder_does_not_block(tmp_path: Path) -> None:
    """The lock is the system's; the text that a dead holder left in the file does not count."""
    path = tmp_path / "lock"
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    with subprocess.Popen(
        [sys.executable, "-c", HOLD, str(path)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        env=environment,
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"held\n"
        with pytest.raises(LockedError, match=f"process {process.pid}"):
            hold(path).__enter__()
        process.send_signal(signal.SIGKILL)
        process.wait()
        with hold(path):
            pass


def test_garbled_lock_file_is_still_a_lock(tmp_path: Path) -> None:
    path = tmp_path / "lock"
    with hold(path):
        path.write_bytes(b"\xff\x00 no json")
        with pytest.raises(LockedError, match="has not said who it is"):
            hold(path).__enter__()


def test_holder_is_shown_without_control_codes(tmp_path: Path) -> None:
    """Any program with access to the folder may have written it."""
    path = tmp_path / "lock"
    bad = "\x1b]0;owned\x07\x1b[2J\u202ehost\n"
    with hold(path):
        path.write_text(json.dumps({"pid": 1, "host": bad, "since": bad}), encoding="utf-8")
        with pytest.raises(LockedError, match="process 1 on ") as told:
            hold(path).__enter__()
        shown = f"{told.value}{holder(path)}"
    assert shown.isprintable()
    assert "host" in shown


@pytest.mark.parametrize("number", [errno.ENOLCK, errno.ENOTSUP, errno.EIO])
def test_file_system_without_locks_is_reported(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    """Else each run would report a holder that does not exist."""

    def refuse(*_: object) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(fcntl, "flock", refuse)
    with pytest.raises(StateError, match="cannot be locked"):
        hold(tmp_path / "lock").__enter__()
    assert holder(tmp_path / "lock") is None


def test_lock_in_missing_folder_is_free(tmp_path: Path) -> None:
    assert holder(tmp_path / "nowhere/lock") is None


def test_unwritable_folder_is_reported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **_how: object) -> None:
        raise OSError(errno.EROFS, os.strerror(errno.EROFS))

    monkeypatch.setattr(Path, "mkdir", refuse)
    with pytest.raises(StateError, match="cannot be written .Read-only"):
        hold(tmp_path / "night/lock").__enter__()


def test_what_stands_in_the_way_is_named(tmp_path: Path) -> None:
    """A link to a disk that is away, and a file where a folder belongs."""
    (tmp_path / "away").symlink_to("/nowhere/disk")
    (tmp_path / "file").write_text("x")
    for name, told in (
        ("away", "is a link to /nowhere/disk, which .* disk mounted"),
        ("file", "is not a folder"),
    ):
        with pytest.raises(StateError, match=f"{name} {told}.* Nothing was sent"):
            hold(tmp_path / name / "night/.kling-batch/lock").__enter__()
