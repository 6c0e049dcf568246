"""The installed command, as cron calls it: no home, no terminal, an environment of next to nothing."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from patience import PATIENCE_S, until
from warm import INSTALLED, WarmCommand

from batch.sandbox import FaultPlan, Sandbox, SandboxConfig, serve

REPOSITORY = Path(__file__).parents[2]
KEY = "sk-verysecretkey0123456789"
NOWHERE = "http://127.0.0.1:9"
MODULE = (sys.executable, "-m", "batch")
LIMITS: dict[str, Any] = {
    "submit_rate": "1000/s",
    "poll_interval": "50ms",
    "settle_time": "100ms",
    "request_timeout": "2s",
}


@dataclass(frozen=True, slots=True)
class Said:
    """How a command ended, and what it said."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        """Parse stdout, which must be one JSON value and nothing else."""
        return json.loads(self.out)


class Shell:
    """Calls the command in a folder of its own, by *warm* where that is the same."""

    until = staticmethod(until)

    def __init__(self, folder: Path, warm: WarmCommand) -> None:
        self.folder = folder
        self.warm = warm
        self.command = (str(INSTALLED),) if INSTALLED.exists() else MODULE
        # Only where the package is not installed does Python have to be told where it is.
        self.umask = -1
        self.base_env = {} if INSTALLED.exists() else {"PYTHONPATH": str(REPOSITORY)}
        # Without a home, too, the person's own state folder is found, and must not be written to.
        self.base_env["XDG_STATE_HOME"] = str(folder.parent / "state")

    def manifest(self, jobs: Any = 2, name: str = "night.yaml", **keys: Any) -> Path:
        """Write a manifest; *jobs* may be a number of them."""
        if isinstance(jobs, int):
            jobs = [{"id": f"job-{n}", "prompt": f"fox number {n}"} for n in range(jobs)]
        limits = {**LIMITS, **keys.pop("limits", {})}
        path = self.folder / name
        # The command's own processes are beyond the fence around this one: where a test names no
        # address, nobody listens.
        keys = {"version": 1, "base_url": NOWHERE, **keys}
        path.write_text(json.dumps({**keys, "limits": limits, "jobs": jobs}), "utf-8")
        return path

    def __call__(
        self,
        *args: Any,
        key: str | None = KEY,
        as_module: bool = False,
        is_fresh: bool = False,
        new: bool = True,
        **env: str,
    ) -> Said:
        """Run to the end; with *new*, a run may pay for a library that does not exist yet.

        With *is_fresh*, in a process that has imported nothing before.
        """
        if new and args[:1] == ("run",):
            args = (*args, "--new")
        command = MODULE if as_module else self.command
        can_be_warm = command == (str(INSTALLED),) and not is_fresh and self.warm.fits(env)
        run = self._run_warm if can_be_warm else self._run_fresh
        code, *told = run((*command, *map(str, args)), self.env(key, env))
        out, err = (text.decode("utf-8", "replace") for text in told)
        said = Said(code, out, err)
        assert "Traceback" not in said.out + said.err
        assert KEY not in said.out + said.err
        assert "\x1b" not in said.out + said.err, "colours without a terminal"
        return said

    def _run_fresh(self, command: tuple[str, ...], env: dict[str, str]) -> tuple[int, bytes, bytes]:
        done = subprocess.run(
            command,
            cwd=self.folder,
            env=env,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=PATIENCE_S,
            check=False,
        )
        return done.returncode, done.stdout, done.stderr

    def _run_warm(self, command: tuple[str, ...], env: dict[str, str]) -> tuple[int, bytes, bytes]:
        return self.warm.run(command[1:], cwd=self.folder, env=env, timeout_s=PATIENCE_S)

    def env(self, key: str | None, more: dict[str, str]) -> dict[str, str]:
        """Return the whole environment of the command."""
        keys = {} if key is None else {"COMETAPI_KEY": key}
        return {**self.base_env, "TMPDIR": str(self.folder.parent), **keys, **more}

    @contextmanager
    def running(self, *args: Any, **env: str) -> Iterator[subprocess.Popen[bytes]]:
        """Start it, and have it ended at the end."""
        if args[0] == "run":
            args = (*args, "--new")
        process = subprocess.Popen(
            [*self.command, *map(str, args)],
            cwd=self.folder,
            env=self.env(KEY, env),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            umask=self.umask,
        )
        try:
            yield process
        finally:
            process.kill()
            process.communicate()

    def files(self) -> dict[str, bytes]:
        """Read every file there is."""
        return {
            str(path.relative_to(self.folder)): path.read_bytes()
            for path in sorted(self.folder.rglob("*"))
            if path.is_file()
        }


@contextmanager
def sandbox_in_a_thread(config: SandboxConfig) -> Iterator[Sandbox]:
    """Serve a sandbox beside the test."""
    started, boxes = threading.Event(), []
    loop = asyncio.new_event_loop()
    stop = asyncio.Event()

    async def main() -> None:
        async with serve(config) as box:
            boxes.append(box)
            started.set()
            await stop.wait()

    def work() -> None:
        try:
            loop.run_until_complete(main())
        finally:
            loop.close()
            started.set()

    thread = threading.Thread(target=work, name="sandbox")
    thread.start()
    started.wait()
    try:
        yield boxes[0]
    finally:
        loop.call_soon_threadsafe(stop.set)
        thread.join()


@pytest.fixture(scope="session")
def warm() -> Iterator[WarmCommand]:
    """Give what runs commands by forks."""
    command = WarmCommand()
    yield command
    command.close()


@pytest.fixture
def shell(tmp_path: Path, warm: WarmCommand) -> Shell:
    """Give the command a folder."""
    folder = tmp_path / "here"
    folder.mkdir()
    return Shell(folder, warm)


@pytest.fixture
def sandbox() -> Iterator[Callable[..., Sandbox]]:
    """Give a function that starts a sandbox with faults and options."""
    with ExitStack() as exits:

        def start(*faults: str, **options: Any) -> Sandbox:
            values = {"median_s": 0.05, "sigma": 0.0, "seed": 1, "clip": "tiny", **options}
            config = SandboxConfig(**values, faults=FaultPlan.from_strings(faults))
            return exits.enter_context(sandbox_in_a_thread(config))

        yield start
