"""The command in a process forked from one that has imported what commands import late.

A start costs a third of a second, and the page at a run's end as much again; a fork costs a hundredth.
The forked process is the command's own from there on: it is given the arguments, folder, environment
and streams of a call, and calls what the installed script calls.

    python warm.py DESCRIPTOR

serves calls from the socket DESCRIPTOR, until that is closed: each is a message (JSON) with the
descriptors of the streams and a pipe, which is given the process id and then the exit code.
"""

from __future__ import annotations

import atexit
import contextlib
import gc
import importlib
import json
import os
import pkgutil
import select
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import traceback
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

INSTALLED = Path(sys.executable).with_name("kling-batch")
# What the interpreter or the C library reads when a process starts, a fork has read already.
READ_AT_START = ("PYTHON", "LC_", "LANG", "LD_", "TZ")
IS_POSSIBLE = sys.platform == "linux"
LATE = ("av", "importlib.readers", "jinja2.ext", "encodings.unicode_escape", "encodings.idna")
MESSAGE_BYTES = 200_000


class WarmCommand:
    """Runs commands by forks of a process that it starts for the first one."""

    def __init__(self) -> None:
        self._calls: socket.socket | None = None
        self._process: subprocess.Popen[bytes] | None = None

    def fits(self, env: Mapping[str, str]) -> bool:
        """Return whether a fork would do as a new process with this environment does."""
        return (
            IS_POSSIBLE and INSTALLED.exists() and not any(n.startswith(READ_AT_START) for n in env)
        )

    def run(
        self, args: Sequence[str], *, cwd: Path, env: Mapping[str, str], timeout_s: float
    ) -> tuple[int, bytes, bytes]:
        """Return exit code, stdout and stderr.

        Raises:
            TimeoutExpired: it has not ended; it is killed.
        """
        call = json.dumps({"args": list(args), "cwd": str(cwd), "env": dict(env)}).encode()
        reader, writer = os.pipe()
        with (
            tempfile.TemporaryFile() as out,
            tempfile.TemporaryFile() as err,
            os.fdopen(reader) as told,
        ):
            streams = [out.fileno(), err.fileno(), writer]
            socket.send_fds(self._started(), [call], streams)
            os.close(writer)
            pid = int(told.readline())
            if not select.select([told], [], [], timeout_s)[0]:
                os.kill(pid, signal.SIGKILL)
                raise subprocess.TimeoutExpired(list(args), timeout_s)
            code = int(told.readline())
            out.seek(0)
            err.seek(0)
            return code, out.read(), err.read()

    def _started(self) -> socket.socket:
        if self._calls is None:
            self._calls, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
            with theirs:
                self._process = subprocess.Popen(
                    [sys.executable, __file__, str(theirs.fileno())],
                    env={},
                    cwd="/",
                    pass_fds=[theirs.fileno()],
                    stdin=subprocess.DEVNULL,
                )
        return self._calls

    def close(self) -> None:
        """End the process."""
        if self._calls is not None and self._process is not None:
            self._calls.close()
            self._process.wait()


def main() -> None:
    """Serve calls."""
    sys.path[0] = str(INSTALLED.parent)
    import_everything()
    gc.collect()
    gc.freeze()
    calls = socket.socket(fileno=int(sys.argv[1]))
    while True:
        message, descriptors, _flags, _address = socket.recv_fds(calls, MESSAGE_BYTES, 3)
        if not message:
            return
        if os.fork() == 0:
            calls.close()
            _serve(json.loads(message), *descriptors)
        for descriptor in descriptors:
            os.close(descriptor)
        with contextlib.suppress(ChildProcessError):
            while os.waitpid(-1, os.WNOHANG)[0]:
                pass


def import_everything() -> None:
    """Import all of the package, and what it imports late of others."""
    import batch  # noqa: PLC0415 - the tests' own process needs none of it here

    for found in pkgutil.walk_packages(batch.__path__, "batch."):
        if found.name != "batch.__main__":
            with contextlib.suppress(ImportError):  # of an extra that is not installed
                importlib.import_module(found.name)
    importlib.import_module("batch.__main__")
    for name in LATE:
        with contextlib.suppress(ImportError):
            importlib.import_module(name)
    importlib.import_module("batch.report.page")._template()
    wiring: Any = importlib.import_module("batch.run.wiring")
    wiring.SANDBOX_SPEED *= 10  # of the sandbox that a run starts for itself


def _serve(call: dict[str, Any], out: int, err: int, told: int) -> None:
    child = os.fork()
    if child:
        os.write(told, f"{child}\n".encode())
        code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        os.write(told, f"{code}\n".encode())
        os._exit(0)
    os.dup2(out, 1)
    os.dup2(err, 2)
    for descriptor in (out, err, told):
        os.close(descriptor)
    os.chdir(call["cwd"])
    os.environ.clear()
    os.environ.update(call["env"])
    sys.argv = [str(INSTALLED), *call["args"]]
    code = 1
    try:
        importlib.import_module("batch.__main__").main()
    except SystemExit as end:
        code = end.code if isinstance(end.code, int) else int(end.code is not None)
    except BaseException:  # noqa: BLE001 - as an interpreter does
        traceback.print_exc()
    # Taking the modules down one by one takes longer than most commands.
    threading._shutdown()
    atexit._run_exitfuncs()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


if __name__ == "__main__":
    main()
