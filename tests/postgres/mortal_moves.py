"""`engine import` and `engine export`, each killed at its n-th step until it survives, on one folder.

    python mortal_moves.py FOLDER          (the engine in KLING_BATCH_ENGINE)

After each death the folder is looked at with and without the engine, the command is run again to its
end, and the state is brought back to where it was. Prints a JSON line for each death: command and
step; how many attempts are seen with and without the engine (null: refused); how the repetition ended.
"""

from __future__ import annotations

import itertools
import json
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

# Import before the forks what the commands import late.
from batch.cli import main as cli
from batch.cli.commands import engine as _engine  # noqa: F401
from batch.errors import BatchError
from batch.key import NO_SECRET
from batch.output import disk, moving, stores
from batch.output.postgres.home import Home
from batch.output.sqlite import Database

DIED, REFUSED = 99, 98


def main() -> None:
    folder = sys.argv[1]
    for command, back in (("import", "export"), ("export", "import")):
        for at in itertools.count():
            step = killed(lambda command=command: call(command, folder), at)
            told = {
                "command": command,
                "step": step,
                "with": seen(folder),
                "without": alone(folder),
            }
            told["again"] = [
                forked(lambda name=name: call(name, folder)) for name in (command, back)
            ]
            print(json.dumps(told), flush=True)
            if not step:
                break
        forked(lambda command=command: call(command, folder))


def call(command: str, folder: str) -> int:
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
    return cli.main(["engine", command, folder])


def seen(folder: str) -> int | None:
    """Return how many attempts are seen with the engine."""
    return answer(lambda: count(Path(folder)))


def alone(folder: str) -> int | None:
    """Return how many attempts are seen without it."""

    def look() -> int:
        stores.use_engine(NO_SECRET)
        return count(Path(folder))

    return answer(look)


def count(root: Path) -> int:
    """Hold the folder, as a run does."""
    try:
        with stores.hold(root) as store:
            return len(list(store.attempts()))
    except BatchError:
        return REFUSED


def answer(work: Callable[[], int]) -> int | None:
    found = forked(work)
    return None if found == REFUSED else found


def forked(work: Callable[[], int]) -> int:
    child = os.fork()
    if not child:
        os._exit(work())
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def killed(work: Callable[[], int], at: int) -> str:
    """Have *work* die at its step; return which one that was, empty if it survived."""
    reader, writer = os.pipe()

    def mortal() -> int:
        die_at(at, writer)
        return work()

    code = forked(mortal)
    os.close(writer)
    with os.fdopen(reader, encoding="utf-8") as told:
        step = told.read()
    if code != (DIED if step else 0):
        sys.exit(f"it ended with {code} at step {at} ({step})")
    return step


def die_at(number: int, writer: int) -> None:
    left = number

    def step(what: str) -> None:
        nonlocal left
        left -= 1
        if left == -1:
            os.write(writer, what.encode())
            os._exit(DIED)

    def around(owner: Any, name: str) -> None:
        work: Callable[..., Any] = getattr(owner, name)

        def wrapped(*args: Any, **options: Any) -> Any:
            result = work(*args, **options)
            step(f"after {name}")  # before the next one is the same
            return result

        setattr(owner, name, wrapped)

    for name in ("take", "give", "fence", "settle", "retire", "delete"):
        around(Home, name)
    for owner, name in ((disk, "move"), (moving, "mark"), (moving, "unmark"), (Database, "load")):
        around(owner, name)


if __name__ == "__main__":
    main()
