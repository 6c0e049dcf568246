"""A program is told: the message on its stdin, no shell between."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import sys
from collections.abc import Sequence
from pathlib import Path

from batch.key import KEY_VARIABLE
from batch.notify.errors import NotDeliveredError

STDERR = 2  # stdout is for the result of `run`


async def call(command: Sequence[str], folder: Path, message: bytes) -> None:
    """Run *command* in *folder* to its end; cancelled, kill it with its children.

    It does not get the API key.

    Raises:
        NotDeliveredError: it cannot be started, or ends with another code than 0.
    """
    environ = {name: value for name, value in os.environ.items() if name != KEY_VARIABLE}
    try:
        process = await asyncio.create_subprocess_exec(
            *command,
            cwd=folder,
            env=environ,
            stdin=asyncio.subprocess.PIPE,
            stdout=STDERR,
            start_new_session=True,  # a process group of its own, to be killed as a whole
        )
    except OSError as error:
        raise NotDeliveredError(f"cannot be started ({error.strerror or error})") from error
    try:
        await process.communicate(message)
    except BaseException:
        _kill(process)
        await process.wait()
        raise
    if process.returncode:
        raise NotDeliveredError(_ending(process.returncode))


def _kill(process: asyncio.subprocess.Process) -> None:
    with contextlib.suppress(ProcessLookupError, PermissionError):
        if sys.platform == "win32":  # pragma: no cover
            process.kill()
        else:
            os.killpg(process.pid, signal.SIGKILL)


def _ending(code: int) -> str:
    return f"ended with exit code {code}" if code > 0 else f"was ended by signal {-code}"
