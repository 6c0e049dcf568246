"""A command that is killed at its n-th step, on a copy of a library for each n, until it survives.

    python mortal_commands.py MADE FOLDER ARGUMENT...

`{}` in an argument stands for the copy of MADE. A step is before and after each link, rename, flush,
unlink and commit. Where there is a bucket (of which each copy has its own), it is after each put, copy
and deletion there, and after each of the others from then on. Prints a JSON line for each copy: the folder, and the step in which it was left.
"""

from __future__ import annotations

import itertools
import json
import os
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

# Import before the forks what a command imports late.
from batch.cli import main as cli
from batch.cli.commands import prune as _prune  # noqa: F401
from batch.cli.commands import restore as _restore  # noqa: F401
from batch.cli.commands import run as _run  # noqa: F401
from batch.output import disk
from batch.output.bucket import Bucket
from batch.output.sqlite import Database
from batch.run import execute as _execute  # noqa: F401

DIED = 99


def main() -> None:
    made, folder, *args = sys.argv[1:]
    for at in itertools.count():
        out = Path(folder) / f"out-{at}"
        shutil.copytree(made, out)
        reader, writer = os.pipe()
        child = os.fork()
        if not child:
            os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
            if "AWS_ENDPOINT_URL" in os.environ:
                os.environ["AWS_ENDPOINT_URL"] += f"/{out.name}"
            die_at(at, writer)
            os._exit(cli.main([arg.format(out) for arg in args]))
        os.close(writer)
        code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        with os.fdopen(reader, encoding="utf-8") as told:
            step = told.read()
        if code not in {0, DIED}:
            sys.exit(f"{args} ended with {code} at step {at}")
        print(json.dumps({"out": str(out), "step": step}), flush=True)
        if code == 0:
            return


def die_at(number: int, writer: int) -> None:
    """Have this process end at its step *number*, and write which one that was."""
    left = number
    is_of_a_bucket = "AWS_ENDPOINT_URL" in os.environ
    has_begun = not is_of_a_bucket

    def step(what: str) -> None:
        nonlocal left
        if not has_begun or (is_of_a_bucket and not what.startswith("after")):
            return
        left -= 1
        if left == -1:
            os.write(writer, what.encode())
            os._exit(DIED)

    def around(owner: Any, name: str) -> None:
        work: Callable[..., Any] = getattr(owner, name)

        def wrapped(*args: Any, **options: Any) -> Any:
            step(f"before {name}")
            result = work(*args, **options)
            step(f"after {name}")
            return result

        setattr(owner, name, wrapped)

    def behind(name: str) -> None:
        work: Callable[..., Any] = getattr(Bucket, name)

        async def wrapped(*args: Any, **options: Any) -> Any:
            nonlocal has_begun
            has_begun, result = True, await work(*args, **options)
            step(f"after {name}")
            return result

        setattr(Bucket, name, wrapped)

    for name in ("put", "copy", "delete"):
        behind(name)
    for owner, name in ((disk, "link"), (disk, "move"), (disk, "flush"), (Database, "write")):
        around(owner, name)
    around(Path, "unlink")


if __name__ == "__main__":
    main()
