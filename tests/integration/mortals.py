"""Runs of the real command that are killed, each in a process forked from this warm one.

    python mortals.py steps  BASE_URL FOLDER JOBS LIMITS_JSON
    python mortals.py random BASE_URL FOLDER JOBS LIMITS_JSON SEED

`steps`: night n kills itself (SIGKILL) at its n-th step, for every n until a night survives. A step
is before and after each commit of the state, each mark of it, each append to results.jsonl (and in the middle of
it), each POST, and each rename of a video or of a file beside it. Then the command runs again until it is done.

`random`: a night is killed at random moments, and run again, until it survives.

Every night has a key, and so an account, of its own. Prints one JSON line per night.
"""

from __future__ import annotations

import gc
import json
import os
import random
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from warm import import_everything

from batch.cli import main as cli
from batch.output import disk, results, seen, sqlite
from batch.provider import client
from batch.run import fetch, gate

AT_ONCE = 4
RUNS_TO_HEAL = 4
KEYS = json.loads(os.environ.get("MORTALS_KEYS", "{}"))  # more of the manifest


def main() -> None:
    mode, base_url, folder, count, limits, *rest = sys.argv[1:]
    import_everything()  # before the forks
    gc.collect()
    gc.freeze()
    root = Path(folder)
    fetch.RETRY_BASE_S = 0.01
    gate.SEND_WITHIN_S = gate.ARRIVES_WITHIN_S = (
        1.0  # how long a killed run's request counts as in flight
    )
    manifest = root / f"{mode}.yaml"
    jobs = [{"id": f"job-{n}", "prompt": f"a fox, number {n}"} for n in range(int(count))]
    manifest.write_text(
        json.dumps({"version": 1, **KEYS, "limits": json.loads(limits), "jobs": jobs}), "utf-8"
    )
    if mode == "steps":
        steps(base_url, root, manifest)
    else:
        at_random(base_url, root, manifest, int(rest[0]))


def steps(base_url: str, root: Path, manifest: Path) -> None:
    """Kill one night at each step, until a night survives."""
    waiting: dict[int, int] = {}
    number, alive_at = 0, None
    while waiting or alive_at is None:
        while alive_at is None and len(waiting) < AT_ONCE:
            number += 1
            waiting[fork(lambda n=number: night(base_url, root, manifest, n))] = number
        child, status = os.wait()
        died_at = waiting.pop(child)
        code = os.waitstatus_to_exitcode(status)
        if code not in {0, 99}:
            sys.exit(f"night {died_at} could not be held: {code}")
        if code == 99 and alive_at is None:
            alive_at = died_at


def night(base_url: str, root: Path, manifest: Path, number: int) -> int:
    """Die at step *number*, then run until it is done; 99 if it did not die."""
    key, out = f"sk-night-{number:04}", root / f"out-{number}"
    first = wait(fork(lambda: die_at(number) or command(base_url, manifest, out, key)))
    codes = [first]
    while codes[-1] != 0 and len(codes) <= RUNS_TO_HEAL:
        codes.append(wait(fork(lambda: command(base_url, manifest, out, key))))
    tell(key, out, codes)
    if first not in {0, -signal.SIGKILL}:
        return first  # neither killed nor finished: this script is at fault
    return 99 if first == 0 else 0


def at_random(base_url: str, root: Path, manifest: Path, seed: int) -> None:
    """Kill runs at random moments until a run survives."""
    dice = random.Random(seed)
    key, out = f"sk-random-{seed:04}", root / f"out-{seed}"
    codes: list[int] = []
    while (not codes or codes[-1] != 0) and len(codes) < 40:
        child = fork(lambda: command(base_url, manifest, out, key))
        # Later runs live longer, so that the series ends.
        time.sleep(dice.uniform(0.02, 0.25 + 0.05 * len(codes)))
        os.kill(child, signal.SIGKILL)
        codes.append(wait(child))
    tell(key, out, codes)


def command(base_url: str, manifest: Path, out: Path, key: str) -> int:
    """Run the real command."""
    os.environ["COMETAPI_KEY"] = key
    out.mkdir(exist_ok=True)
    log = os.open(out.with_suffix(".log"), os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.dup2(log, 1)
    os.dup2(log, 2)
    return cli.main(
        [
            "run",
            str(manifest),
            "--new",
            "--base-url",
            base_url,
            "--output-dir",
            str(out),
            "--verbose",
        ]
    )


def tell(key: str, out: Path, codes: list[int]) -> None:
    """Print the outcome of a night."""
    rows = [json.loads(line) for line in (out / "results.jsonl").read_text("utf-8").splitlines()]
    line = json.dumps({"key": key, "out": str(out), "codes": codes, "rows": rows}) + "\n"
    os.write(1, line.encode())


def fork(work: Callable[[], int]) -> int:
    """Run *work* in a child process; its result is the exit code."""
    child = os.fork()
    if child:
        return child
    code = 70
    try:
        code = work()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


def wait(child: int) -> int:
    """Return a child's exit code; a negative one is the signal that killed it."""
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def die_at(number: int) -> int:
    """Have this process kill itself at its step *number*."""
    left = number

    def step() -> None:
        nonlocal left
        left -= 1
        if left == 0:
            os.kill(os.getpid(), signal.SIGKILL)

    def around(work: Callable[..., Any]) -> Callable[..., Any]:
        def wrapped(*args: Any, **options: Any) -> Any:
            step()
            result = work(*args, **options)
            step()
            return result

        return wrapped

    send = client.Client.submit

    async def submit_and_die(self: Any, *args: Any, **options: Any) -> Any:
        step()
        answer = await send(self, *args, **options)
        step()
        return answer

    append = results.ResultsFile.append

    def append_half_and_die(self: Any, lines: list[str]) -> None:
        nonlocal left
        if lines and left == 1:
            with self._path.open("ab") as file:
                file.write("\n".join(lines).encode()[:-30])
        around(append)(self, lines)

    client.Client.submit = submit_and_die
    results.ResultsFile.append = append_half_and_die
    sqlite.Database.write = around(sqlite.Database.write)
    seen.Seen.note = around(seen.Seen.note)
    disk.move = around(disk.move)
    return 0


if __name__ == "__main__":
    main()
