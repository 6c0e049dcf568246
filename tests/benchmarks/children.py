"""The processes of a benchmark: the client, its peers and the sandbox.

CPU and memory are those that the system reports of a child at its end. Linux includes the memory
that the child had before `exec`, so the parent must be small: it imports nothing of the package.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
import urllib.request
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent.parent
API_PATH = "/kling/v1/videos/text2video"
KEY = "sk-bench"
SAMPLE_S = 0.5
_FOREIGN = ("COMETAPI_", "KLING_BATCH_", "PYTHON", "HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY")
_DIRECT = urllib.request.build_opener(urllib.request.ProxyHandler({}))


@dataclass(frozen=True, slots=True)
class Used:
    """The time, CPU and memory that a process used.

    *samples*: wall-clock time, CPU so far, and how many descriptors were open.
    """

    wall_s: float
    cpu_s: float
    peak_mb: float
    exit_code: int
    output: str
    samples: list[tuple[float, float, int]] = field(default_factory=list)


class FailedError(Exception):
    """A process did not do its work, so there is no figure to report."""


def run(
    command: Sequence[str | os.PathLike[str]],
    folder: Path,
    *,
    kill_after_s: float | None = None,
    is_sampled: bool = False,
) -> Used:
    """Run a program in *folder* to its end, or kill it after *kill_after_s*.

    Raises:
        FailedError: its exit code is not 0, and it was not to be killed.
    """
    with tempfile.TemporaryFile(dir=folder) as output:
        begun = time.perf_counter()
        child = subprocess.Popen(
            command,
            cwd=folder,
            env=environment(),
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
        )
        samples: list[tuple[float, float, int]] = []
        ended = threading.Event()
        sampler = threading.Thread(target=_sample, args=(child.pid, samples, ended))
        timer = threading.Timer(kill_after_s or 0.0, os.kill, (child.pid, signal.SIGKILL))
        try:
            if is_sampled:
                sampler.start()
            if kill_after_s is not None:
                timer.start()
            _, status, usage = os.wait4(child.pid, 0)
            wall_s = time.perf_counter() - begun
            child.returncode = os.waitstatus_to_exitcode(status)
        finally:
            timer.cancel()
            ended.set()
            if child.returncode is None:
                child.kill()
                child.wait()
        output.seek(0)
        text = output.read().decode("utf-8", "replace")
    if child.returncode != 0 and kill_after_s is None:
        name = " ".join(str(part) for part in command)
        raise FailedError(f"{name}\nended with {child.returncode}:\n{text[-2_000:]}")
    unit = 1e6 if sys.platform == "darwin" else 1e6 / 1024
    return Used(
        wall_s=wall_s,
        cpu_s=usage.ru_utime + usage.ru_stime,
        peak_mb=usage.ru_maxrss / unit,
        exit_code=child.returncode,
        output=text,
        samples=samples,
    )


def python(*arguments: str | os.PathLike[str]) -> list[str | os.PathLike[str]]:
    """Return the command of the Python that runs this."""
    return [sys.executable, *arguments]


def batch(*arguments: str | os.PathLike[str]) -> list[str | os.PathLike[str]]:
    """Return the command of the client."""
    return python("-m", "batch", *arguments)


def environment() -> dict[str, str]:
    """Return the environment of a child: ours, without variables that change its behaviour."""
    own = {name: value for name, value in os.environ.items() if not _is_foreign(name)}
    home = Path(tempfile.gettempdir()) / "kling-batch-benchmarks"  # not the person's
    return own | {"PYTHONPATH": str(ROOT), "COMETAPI_KEY": KEY, "XDG_STATE_HOME": str(home)}


def _is_foreign(name: str) -> bool:
    return name.upper().startswith(_FOREIGN)


def _sample(pid: int, samples: list[tuple[float, float, int]], ended: threading.Event) -> None:
    """Record CPU and descriptors of a process until its end; nothing where there is no /proc."""
    tick_s = 1 / os.sysconf("SC_CLK_TCK")
    with contextlib.suppress(OSError):
        while not ended.wait(SAMPLE_S):
            fields = Path(f"/proc/{pid}/stat").read_text("utf-8").rpartition(")")[2].split()
            cpu_s = (int(fields[11]) + int(fields[12])) * tick_s
            samples.append((time.time(), cpu_s, len(os.listdir(f"/proc/{pid}/fd"))))  # noqa: PTH208


@contextlib.contextmanager
def folder() -> Iterator[Path]:
    """Make a folder for the time of a benchmark, on the disk of temporary files."""
    path = Path(tempfile.mkdtemp(prefix="kling-batch-bench-")).resolve()
    try:
        yield path
    finally:
        shutil.rmtree(path, ignore_errors=True)


# -- the sandbox -------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Server:
    """A running sandbox."""

    base_url: str

    def get(self, path: str) -> Any:
        """Return the decoded answer to a GET."""
        return self._ask(urllib.request.Request(self.base_url + path, headers=_HEADERS))

    def post(self, path: str, body: dict[str, Any]) -> Any:
        """Return the decoded answer to a POST."""
        data = json.dumps(body).encode()
        return self._ask(urllib.request.Request(self.base_url + path, data, headers=_HEADERS))

    def stats(self) -> dict[str, Any]:
        """Return its statistics; see `batch.sandbox.stats`."""
        found: dict[str, Any] = self.get("/sandbox/stats")
        return found

    def _ask(self, request: urllib.request.Request) -> Any:
        with _DIRECT.open(request, timeout=60) as answer:
            return json.load(answer)


_HEADERS = {"Authorization": f"Bearer {KEY}", "Content-Type": "application/json"}


@contextlib.contextmanager
def sandbox(*options: str) -> Iterator[Server]:
    """Run a sandbox for the time of the block; *options* are those of the command.

    Raises:
        FailedError: it did not start.
    """
    server = subprocess.Popen(
        batch("sandbox", "--port", "0", *options),
        cwd=ROOT,
        env=environment() | {"PYTHONUNBUFFERED": "1"},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        assert server.stdout is not None
        name, _, address = server.stdout.readline().partition(":")
        if name != "API":
            raise FailedError(f"the sandbox did not start with {' '.join(options)}")
        server.stdout.readline()
        yield Server(address.strip())
    finally:
        server.terminate()
        server.wait()
        if server.stdout is not None:
            server.stdout.close()
