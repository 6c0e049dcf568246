"""Several downloads at once, against curl, aria2c and aiohttp alone: same server, same file system.

python tests/benchmarks/downloads.py [--quick] [--json] [--check]

The client is timed from the first generated task to the last finished job: its files are hashed,
inspected, flushed and renamed. Others are timed from start to end: see `fetchers.py` for what each
of them does.

On loopback only the CPU limits a download, and client and server share it, so the bytes come from a
server that needs almost none (`file_server.py`; the sandbox redirects there). Over a line it is the
line that limits it, as long as the disk and the CPU keep up: TMPDIR=/dev/shm takes away the disk.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import shutil
import statistics
import subprocess
import time
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from pathlib import Path

import children
import fetchers
import figures
import manifests
from children import FailedError, Server
from fetchers import CURL, HASHED, KEPT, READ, Fetcher
from figures import Figure

PARALLEL = 8
CLIP_BYTES = {"small": 250_000, "5 MB": 5_000_000, "11 MB": 11_000_000, "27 MB": 27_000_000}
KLING = ("5 MB", "11 MB", "27 MB")  # the clips as Kling makes them, 5 s in std to 10 s in pro
SHARED_BYTES = 1_000_000_000  # downloaded in a round where only the CPU limits it
LINE_S = 10  # how long the line is busy in a round
LINES_GBIT = (1, 10)
GENERATED_S = 2.0  # each task; up to 1,000 are submitted in one second
MOST_MB = 150.0
MOST_BLOCKED_MS = 50.0


@dataclass(frozen=True, slots=True)
class _Case:
    """Clips to download. *clips* come in turn; *line* is in Gbit/s, None for as fast as it goes."""

    name: str
    clips: tuple[str, ...]
    count: int
    line: float | None = None

    @property
    def total(self) -> int:
        """Bytes in all."""
        return sum(CLIP_BYTES[clip] for clip in self.clips) * (self.count // len(self.clips))


@dataclass(slots=True)
class _Found:
    """Seconds and CPU seconds of each round, ours and the peers'; our memory and lateness."""

    seconds: dict[str, list[float]] = field(default_factory=dict)
    cpu_s: dict[str, list[float]] = field(default_factory=dict)
    peak_mb: list[float] = field(default_factory=list)
    blocked_ms: list[float] = field(default_factory=list)

    def add(self, who: str, seconds: float, cpu_s: float) -> None:
        self.seconds.setdefault(who, []).append(seconds)
        self.cpu_s.setdefault(who, []).append(cpu_s)


def measure(*, quick: bool = False) -> figures.Report:
    """Measure bytes per second, CPU, memory, and how long the event loop is blocked."""
    rounds = 1 if quick else 3
    told: list[Figure] = []
    notes: list[str] = []
    with children.folder() as folder:
        files = {name: _make(folder / f"{size}.mp4", size) for name, size in CLIP_BYTES.items()}
        for case in _cases(shrink=20 if quick else 1):
            with (
                _served([files[clip] for clip in case.clips], case.line) as link,
                _redirecting(link) as server,
            ):
                found = _measure(folder, server, [link] * case.count, case.total, rounds)
            told += _figures(case, found)
            notes += _shares(case, found)
    notes += [
        f"{rounds} rounds, in turn, {PARALLEL} downloads at once; MB/s: more is better",
        "a line is a token bucket in the file server, for all connections together",
        f"hashing takes {_hash_s():.2f} s/GB of CPU, which is in ours and in {HASHED!r}",
        *(f"{name} is not installed" for name in ("curl", "aria2c") if shutil.which(name) is None),
    ]
    return figures.report("downloads", "clips of 0.25 to 27 MB", told, notes=notes)


def _cases(shrink: int) -> Iterator[_Case]:
    for name, size in CLIP_BYTES.items():
        count = min(SHARED_BYTES // size, 800) // shrink
        yield _Case(f"{name} clips, shared cores", (name,), max(count, PARALLEL))
    for line in LINES_GBIT:
        turn = sum(CLIP_BYTES[clip] for clip in KLING)
        turns = max(int(line * 1e9 / 8 * LINE_S / turn) // shrink, 3)
        yield _Case(f"5 to 27 MB, {line} Gbit/s", KLING, turns * len(KLING), line)


def _figures(case: _Case, found: _Found) -> Iterator[Figure]:
    """Compare bytes per second and CPU per GB with those of each peer."""
    rates = {who: [case.total / 1e6 / each for each in took] for who, took in found.seconds.items()}
    costs = {who: [each / (case.total / 1e9) for each in cpu] for who, cpu in found.cpu_s.items()}
    are_clips, is_line = set(case.clips) <= set(KLING), case.line is not None
    for who in (who for who in rates if who not in ("ours", READ)):
        goal = (0.97 if is_line else 0.7) if are_clips and who == CURL else None
        yield figures.compared(case.name, "MB/s", rates["ours"], who, rates[who], at_least=goal)
    for who in (who for who in costs if who != "ours"):
        goal = 1.0 if are_clips and who == HASHED else None
        name = f"{case.name}, CPU"
        yield figures.compared(name, "s/GB", costs["ours"], who, costs[who], at_most=goal)
    peak_mb, blocked_ms = max(found.peak_mb), max(found.blocked_ms)
    for what, unit, value, most in (
        ("peak memory", "MB", peak_mb, MOST_MB),
        ("loop blocked, longest", "ms", blocked_ms, MOST_BLOCKED_MS),
    ):
        name = f"{case.name}, {what}"
        yield Figure(name=name, unit=unit, ours=figures.rounded(value), at_most=most)


def _shares(case: _Case, found: _Found) -> Iterator[str]:
    """Yield what limits the case: the line, or on shared cores the CPU of what must be done."""
    medians = {who: statistics.median(took) for who, took in found.seconds.items()}
    if case.line is not None:
        least_s = case.total / (case.line * 1e9 / 8)
        shares = (f"{who} {least_s / medians[who]:.1%}" for who in ("ours", CURL) if who in medians)
        yield f"{case.name}: used of the line: {', '.join(shares)}"
    elif CURL in medians:
        ratio = medians[CURL] / medians[KEPT]
        yield f"{case.name}: {KEPT!r} reaches {ratio:.2f} times curl's MB/s"


def _hash_s() -> float:
    """Return what hashing takes, in seconds of CPU per GB."""
    block = bytes(2**20)
    begun = time.process_time()
    for _ in range(64):
        hashlib.sha256(block)
    return (time.process_time() - begun) / (64 * len(block) / 1e9)


def _measure(folder: Path, server: Server, links: Sequence[str], total: int, rounds: int) -> _Found:
    found = _Found()
    for _ in range(rounds):
        home = folder / "round"
        home.mkdir()
        _ours(home, server, len(links), total, found)
        for name, fetch in fetchers.installed().items():
            _theirs(home, name, fetch, links, total, found)
        shutil.rmtree(home)
    return found


def _ours(home: Path, server: Server, count: int, total: int, found: _Found) -> None:
    manifest = manifests.write(
        home / "jobs.yaml",
        count,
        submit_rate="1000/s",
        poll_interval="100ms",
        max_downloads=str(PARALLEL),
    )
    findings = home / "findings.json"
    run = ("run", "--new", manifest, "--base-url", server.base_url, "--quiet")
    used = children.run(children.python(children.HERE / "watched.py", findings, *run), home)
    _check(home / "outputs" / "bench" / "videos", total)
    shutil.rmtree(home / "outputs")
    told = json.loads(findings.read_text("utf-8"))
    found.add("ours", told["seconds"], told["cpu_s"])
    found.peak_mb.append(used.peak_mb)
    found.blocked_ms.append(told["longest_ms"])


def _theirs(
    home: Path, name: str, fetch: Fetcher, links: Sequence[str], total: int, found: _Found
) -> None:
    target = home / "peer"
    target.mkdir()
    found.add(name, *fetch(home, target, links, PARALLEL))
    if name != READ:
        _check(target, total)
    shutil.rmtree(target)


def _check(folder: Path, total: int) -> None:
    found = sum(path.stat().st_size for path in folder.glob("*.mp4"))
    if found != total:
        raise FailedError(f"{found} bytes of {total} were downloaded")


# -- the server --------------------------------------------------------------------------------


def _redirecting(link: str) -> AbstractContextManager[Server]:
    """Start a sandbox that sends every download to *link*.

    All tasks are submitted before the first one ends: it is the downloads that are measured.
    """
    plain = ("--median", str(GENERATED_S), "--sigma", "0", "--clip", "tiny", "--video-bytes", "1")
    return children.sandbox(*plain, "--fault", f"download:redirect:to={link}")


def _make(path: Path, size: int) -> Path:
    children.run(children.python(children.HERE / "clip.py", str(size), path), path.parent)
    return path


@contextlib.contextmanager
def _served(files: Sequence[Path], line: float | None) -> Iterator[str]:
    """Serve *files* in turn, over a line of so many Gbit/s; yield the address."""
    limit = [] if line is None else ["--line", str(line)]
    serving = subprocess.Popen(
        children.python(children.HERE / "file_server.py", *limit, *files),
        env=children.environment(),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        assert serving.stdout is not None
        yield serving.stdout.readline().strip()
    finally:
        serving.kill()
        serving.communicate()


if __name__ == "__main__":
    figures.main(measure)
