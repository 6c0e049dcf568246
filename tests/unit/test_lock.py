"""One run per folder: the second is told who holds it, and a dead holder does not block."""

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


def test_the_second_is_told_who_holds_it(tmp_path: Path) -> None:
    path = tmp_path / ".kling-batch/lock"
    with hold(path):
        with pytest.raises(LockedError, match=f"process {os.getpid()} on "):
            hold(path).__enter__()
        assert f"process {os.getpid()}" in (holder(path) or "")
    assert holder(path) is None


def test_deleting_the_lock_file_does_not_let_a_second_run_in(tmp_path: Path) -> None:
    """People do that when they are told that another run holds the folder."""
    path = tmp_path / ".kling-batch/lock"
    with hold(path):
        path.unlink()
        with pytest.raises(LockedError):
            hold(path).__enter__()
        assert holder(path) is not None
    assert holder(path) is None


def test_it_is_free_when_it_was_given_back(tmp_path: Path) -> None:
    path = tmp_path / "lock"
    with hold(path):
        pass
    with hold(path):
        pass


def test_nobody_holds_what_is_not_there(tmp_path: Path) -> None:
    assert holder(tmp_path / "lock") is None


def test_a_killed_holder_does_not_block(tmp_path: Path) -> None:
    """The lock is the system's; what the dead has written into the file is only text."""
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


def test_a_garbled_lock_file_is_still_a_lock(tmp_path: Path) -> None:
    path = tmp_path / "lock"
    with hold(path):
        path.write_bytes(b"\xff\x00 no json")
        with pytest.raises(LockedError, match="has not said who it is"):
            hold(path).__enter__()


def test_what_a_lock_file_says_is_shown_without_control_codes(tmp_path: Path) -> None:
    """Anybody who may write into the folder may have written it."""
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
def test_a_file_system_that_cannot_lock_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    """That another run holds it would be said for ever, of nobody."""

    def refuse(*_: object) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(fcntl, "flock", refuse)
    with pytest.raises(StateError, match="cannot be locked"):
        hold(tmp_path / "lock").__enter__()
    assert holder(tmp_path / "lock") is None


def test_a_folder_that_cannot_be_made_is_told(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(StateError, match="cannot be written"):
        hold(tmp_path / "file/lock").__enter__()
