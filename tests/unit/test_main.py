"""The last net: what no command has foreseen is told as what it is."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
from pathlib import Path
from typing import NoReturn

import pytest

from batch.cli.main import app, main
from batch.errors import ExitCode

FILE = "outputs/night/videos"
EXHAUSTED = """
import batch.cli.main
import batch.__main__
def fail():
    raise MemoryError
batch.cli.main.main = fail
batch.__main__.main()
"""
UNMAPPED = "_ssl.so: failed to map segment from shared object"


def refused(number: int, file: str | None = FILE) -> OSError:
    return OSError(number, os.strerror(number), file)


@pytest.mark.parametrize(
    ("error", "code", "told"),
    [
        (
            refused(errno.EACCES),
            1,
            f"{FILE} cannot be used (Permission denied); are its permissions",
        ),
        (refused(errno.EIO), 1, f"{FILE} cannot be used (Input/output error)"),
        (refused(errno.EIO, None), 1, "a file cannot be used (Input/output error)"),
        (refused(errno.ESTALE), 1, f"{FILE} cannot be used"),
        (refused(errno.EMFILE), 1, "the system grants this process no more"),
        (MemoryError(), 1, "the system grants this process no more memory"),
        (ImportError(UNMAPPED), 1, "the system grants this process no more memory"),
        (ImportError("no module"), 70, "this is a bug of kling-batch (ImportError)"),
        (refused(errno.ENAMETOOLONG), 1, f"{FILE} cannot be used (File name too long)"),
        (refused(errno.EEXIST), 70, "this is a bug of kling-batch (FileExistsError)"),
        (KeyError("x"), 70, "this is a bug of kling-batch (KeyError)"),
    ],
    ids=str,
)
def test_what_the_system_refuses_is_no_bug(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    error: Exception,
    code: int,
    told: str,
) -> None:
    """A folder of another user, a disk that fails, a network drive that has gone away."""

    def fail(**_how: object) -> NoReturn:
        raise error

    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    monkeypatch.setattr(app, "main", fail)
    assert main(["status"]) == code
    assert capsys.readouterr().err.startswith(f"kling-batch: {told}")
    assert len(list(tmp_path.iterdir())) == (code == ExitCode.BUG)


def test_no_memory_even_for_a_report_is_told() -> None:
    """Under ulimit -v 44M: the report of another error finds none."""
    done = subprocess.run(
        [sys.executable, "-c", EXHAUSTED], capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == (
        "kling-batch: the system grants this process no more memory (ulimit -v)\n"
    )
