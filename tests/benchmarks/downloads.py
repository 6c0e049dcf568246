"""Several large downloads at once, against curl and aria2c: same server, same file system.

python tests/benchmarks/downloads.py [--quick] [--json] [--check]

The client is timed from the first generated task to the last finished job: its files are hashed,
inspected, flushed and renamed. curl and aria2c are timed from start to end and do none of that, so
there are two more lines for curl: with a flush, and with sha256sum as well.

On loopback only the CPU limits a download, and client and server share it, so the bytes come from a
server that needs almost none (`file_server.py`; the sandbox redirects there). Over a link it is the
link that limits it. Both are measured.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import shutil
import subprocess
import time
import urllib.request
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from pathlib import Path

import children
import figures
import manifests
from children import FailedError, Server
from figures import Figure

VIDEO_BYTES = 150_000_000
PARALLEL = (4, 8)
LINK_VIDEO_BYTES = 20_000_000
LINK_BYTES_PER_S = 20 * 262_144  # per stream: the most that the sandbox's slow downloads reach
MOST_MB = 150.0
MOST_BLOCKED_MS = 50.0
BODY = {"model_name": "kling-v2-6", "mode": "std", "duration": "5", "aspect_ratio": "16:9"}
FLUSHED, HASHED = "curl, sync", "curl, sync, sha256sum"


@dataclass(slots=True)
class _Found:
    """Seconds and CPU seconds of each round, ours and the peers'; our memory and lateness."""

    seconds: dict[str, list[float]] = field(default_factory=dict)
    cpu_s: dict[str, list[float]] = field(default_factory=dict)
    peak_mb: list[float] = field(default_factory=list)
    blocked_ms: list[float] = field(default_factory=list)
    blocked_cpu_ms: list[float] = field(default_factory=list)

    def add(self, who: str, seconds: float, cpu_s: float) -> None:
        self.seconds.setdefault(who, []).append(seconds)
        self.cpu_s.setdefault(who, []).append(cpu_s)


def measure(*, quick: bool = False) -> figures.Report:
    """Measure bytes per second, CPU, memory, and how long the event loop is blocked."""
    shrink, rounds = (8, 1) if quick else (1, 5)
    size, link_size = VIDEO_BYTES // shrink, LINK_VIDEO_BYTES // shrink
    peers = _peers()
    curl = {name: peer for name, peer in peers.items() if name == "curl"}
    slow = ("--fault", f"download:slow:bytes_per_s={LINK_BYTES_PER_S}")
    told: list[Figure] = []
    with children.folder() as folder:
        with _files(folder, size) as address, _redirecting(address) as server:
            for parallel in PARALLEL:
                name, total = f"{parallel} at once", parallel * size
                links = [address] * parallel
                found = _measure(folder, server, links, size, rounds=rounds, peers=peers)
                told += _rates(name, found, total) + _costs(name, found, total)
        with _sandbox(link_size, *slow) as server:
            for parallel in PARALLEL:
                links = _links(server, parallel)
                found = _measure(folder, server, links, link_size, rounds=1, peers=curl)
                told += _rates(f"{parallel} at once, over a link", found, parallel * link_size)
    notes = [
        f"{rounds} rounds, in turn; MB/s: more is better",
        "sha256sum takes one file after the other",
        f"over a link: one round of {link_size / 1e6:g} MB, {LINK_BYTES_PER_S / 1e6:.1f} MB/s each",
        *_bounds(told),
        *(f"{name} is not installed" for name in ("curl", "aria2c") if shutil.which(name) is None),
    ]
    return figures.report("downloads", f"videos of {size / 1e6:g} MB", told, notes=notes)


def _rates(name: str, found: _Found, total: int) -> list[Figure]:
    """Compare the bytes per second with those of each peer."""
    rates = {
        who: [total / 1e6 / each for each in seconds] for who, seconds in found.seconds.items()
    }
    ours = rates.pop("ours")
    return [
        figures.compared(name, "MB/s", ours, who, theirs, at_least=0.9 if who == "curl" else None)
        for who, theirs in rates.items()
    ]


def _costs(name: str, found: _Found, total: int) -> list[Figure]:
    per_gb = {who: [each / (total / 1e9) for each in cpu] for who, cpu in found.cpu_s.items()}
    ours = per_gb.pop("ours")
    return [
        *(
            figures.compared(
                f"{name}, CPU", "s/GB", ours, who, theirs, at_most=1.0 if who == HASHED else None
            )
            for who, theirs in per_gb.items()
            if who != FLUSHED
        ),
        Figure(
            name=f"{name}, peak memory",
            unit="MB",
            ours=figures.rounded(max(found.peak_mb)),
            at_most=MOST_MB,
        ),
        Figure(
            name=f"{name}, loop blocked, longest",
            unit="ms",
            ours=figures.rounded(max(found.blocked_ms)),
            at_most=MOST_BLOCKED_MS,
        ),
        Figure(
            name=f"{name}, … by work of its own",
            unit="ms CPU",
            ours=figures.rounded(max(found.blocked_cpu_ms)),
        ),
    ]


def _bounds(told: Sequence[Figure]) -> list[str]:
    """Return the cost, in seconds per GB, of the work that only the client does."""
    block = bytes(2**20)
    begun = time.process_time()
    for _ in range(64):
        hashlib.sha256(block)
    hash_s = (time.process_time() - begun) / (64 * len(block) / 1e9)
    notes = [f"hashing takes {hash_s:.2f} s/GB of CPU, which curl does not need"]
    for figure in told:
        if figure.peer == FLUSHED and figure.theirs:
            plain = next(f for f in told if f.name == figure.name and f.peer == "curl").theirs
            assert plain
            flush_s = 1e3 / figure.theirs - 1e3 / plain
            notes.append(f"{figure.name}: flushing the files of curl takes {flush_s:.2f} s/GB more")
    return notes


def _measure(
    folder: Path,
    server: Server,
    links: Sequence[str],
    size: int,
    *,
    rounds: int,
    peers: dict[str, Peer],
) -> _Found:
    found = _Found()
    parallel, total = len(links), len(links) * size
    for _ in range(rounds):
        home = folder / "round"
        home.mkdir()
        _ours(home, server, parallel, total, found)
        for name, peer in peers.items():
            target = home / "peer"
            target.mkdir()
            found.add(name, *peer(home, target, links))
            _check(target, total)
            shutil.rmtree(target)
        shutil.rmtree(home)
    return found


def _ours(home: Path, server: Server, parallel: int, total: int, found: _Found) -> None:
    manifest = manifests.write(
        home / "jobs.yaml",
        parallel,
        submit_rate="1000/s",
        poll_interval="100ms",
        max_downloads=str(parallel),
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
    found.blocked_cpu_ms.append(told["longest_cpu_ms"])


def _check(folder: Path, total: int) -> None:
    found = sum(path.stat().st_size for path in folder.iterdir())
    if found != total:
        raise FailedError(f"{found} bytes of {total} were downloaded")


# -- the server --------------------------------------------------------------------------------


def _sandbox(size: int, *options: str) -> AbstractContextManager[Server]:
    plain = ("--median", "0.1", "--sigma", "0", "--clip", "tiny", "--video-bytes", str(size))
    return children.sandbox(*plain, *options)


@contextlib.contextmanager
def _files(folder: Path, size: int) -> Iterator[str]:
    """Serve a video of *size* bytes from a file; yield its address."""
    path = folder / "video.mp4"
    with _sandbox(size) as server:
        direct = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        with direct.open(_links(server, 1)[0]) as answer, path.open("wb") as file:
            shutil.copyfileobj(answer, file)
    serving = subprocess.Popen(
        children.python(children.HERE / "file_server.py", path),
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


def _redirecting(address: str) -> AbstractContextManager[Server]:
    return _sandbox(1, "--fault", f"download:redirect:to={address}")


def _links(server: Server, count: int) -> list[str]:
    """Create tasks and return the signed links to their videos."""
    links = []
    for number in range(count):
        made = server.post(children.API_PATH, {**BODY, "prompt": f"video {number}"})
        path = f"{children.API_PATH}/{made['data']['task_id']}"
        while not (videos := server.get(path)["data"]["task_result"].get("videos")):
            time.sleep(0.05)
        links.append(videos[0]["url"])
    return links


# -- the peers ---------------------------------------------------------------------------------

Peer = Callable[[Path, Path, Sequence[str]], tuple[float, float]]
"""Downloads links into the second folder; returns seconds and CPU seconds."""


def _peers() -> dict[str, Peer]:
    found: dict[str, Peer] = {}
    if shutil.which("curl"):
        found |= {"curl": _curl, FLUSHED: _curl_flushed}
        if shutil.which("sha256sum"):
            found[HASHED] = _curl_hashed
    if shutil.which("aria2c"):
        found["aria2c"] = _aria2c
    return found


def _curl(home: Path, target: Path, links: Sequence[str]) -> tuple[float, float]:
    options = ["--noproxy", "*", "--fail", "--silent", "--show-error", "--parallel"]
    options += ["--parallel-immediate", "--parallel-max", str(len(links))]
    for number, link in enumerate(links):
        options += ["-o", str(target / f"{number}.mp4"), link]
    used = children.run(["curl", *options], home)
    return used.wall_s, used.cpu_s


def _curl_flushed(home: Path, target: Path, links: Sequence[str]) -> tuple[float, float]:
    wall_s, cpu_s = _curl(home, target, links)
    used = children.run(["sync", *target.iterdir()], home)
    return wall_s + used.wall_s, cpu_s + used.cpu_s


def _curl_hashed(home: Path, target: Path, links: Sequence[str]) -> tuple[float, float]:
    wall_s, cpu_s = _curl_flushed(home, target, links)
    used = children.run(["sha256sum", *target.iterdir()], home)
    return wall_s + used.wall_s, cpu_s + used.cpu_s


def _aria2c(home: Path, target: Path, links: Sequence[str]) -> tuple[float, float]:
    listed = home / "links"
    listed.write_text("".join(f"{link}\n  out={i}.mp4\n" for i, link in enumerate(links)), "utf-8")
    options = ["--quiet", "--no-conf", "--file-allocation=none", "--split=1", "-x", "1"]
    options += ["-j", str(len(links)), "-d", str(target), "-i", str(listed)]
    used = children.run(["aria2c", *options], home)
    return used.wall_s, used.cpu_s


if __name__ == "__main__":
    figures.main(measure)
