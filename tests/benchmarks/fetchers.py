"""Other programs that download links: what each takes for the same bytes.

`HASHED` does what the client does with every video, as one would type it: curl, tee, sha256sum, sync.
`READ` is what the client's own packages take to read the bytes, `KEPT` what they take to hash, write
and flush them, too: no client made of them that does so is cheaper.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Sequence
from pathlib import Path

import children

CURL, HASHED, ARIA2C = "curl", "curl | sha256sum; sync", "aria2c"
READ, KEPT = "aiohttp, nothing kept", "aiohttp, hashed and flushed"
PIPED = (
    'curl --noproxy \'*\' --fail --silent --show-error "$1" | tee "$0" | sha256sum > "$0.sha256"'
    ' && sync "$0"'
)

Fetcher = Callable[[Path, Path, Sequence[str], int], tuple[float, float]]
"""Downloads links into the second folder, so many at once; returns seconds and CPU seconds."""


def installed() -> dict[str, Fetcher]:
    """Return the programs that are here, by name."""
    found: dict[str, Fetcher] = {}
    if shutil.which("curl"):
        found[CURL] = _curl
        if all(map(shutil.which, ("tee", "sha256sum", "sync", "xargs"))):
            found[HASHED] = _hashed
    if shutil.which("aria2c"):
        found[ARIA2C] = _aria2c
    return found | {READ: _read, KEPT: _kept}


def _curl(home: Path, target: Path, links: Sequence[str], parallel: int) -> tuple[float, float]:
    options = ["--noproxy", "*", "--fail", "--silent", "--show-error", "--parallel"]
    options += ["--parallel-immediate", "--parallel-max", str(parallel)]
    for path, link in _targets(target, links):
        options += ["-o", path, link]
    used = children.run(["curl", *options], home)
    return used.wall_s, used.cpu_s


def _hashed(home: Path, target: Path, links: Sequence[str], parallel: int) -> tuple[float, float]:
    listed = home / "piped"
    listed.write_text(
        "".join(f"{path}\n{link}\n" for path, link in _targets(target, links)), "utf-8"
    )
    options = ["--arg-file", str(listed), "--max-procs", str(parallel), "--max-args", "2"]
    used = children.run(["xargs", *options, "sh", "-c", PIPED], home)
    return used.wall_s, used.cpu_s


def _aria2c(home: Path, target: Path, links: Sequence[str], parallel: int) -> tuple[float, float]:
    listed = home / "links"
    listed.write_text(
        "".join(f"{link}\n  out={Path(path).name}\n" for path, link in _targets(target, links)),
        "utf-8",
    )
    options = ["--quiet", "--no-conf", "--file-allocation=none", "--split=1", "-x", "1"]
    options += ["-j", str(parallel), "-d", str(target), "-i", str(listed)]
    used = children.run(["aria2c", *options], home)
    return used.wall_s, used.cpu_s


def _read(home: Path, target: Path, links: Sequence[str], parallel: int) -> tuple[float, float]:
    return _reader(home, str(parallel), *links)


def _kept(home: Path, target: Path, links: Sequence[str], parallel: int) -> tuple[float, float]:
    return _reader(home, str(parallel), "--into", target, *links)


def _reader(home: Path, *arguments: str | Path) -> tuple[float, float]:
    used = children.run(children.python(children.HERE / "reader.py", *arguments), home)
    seconds, cpu_s = map(float, used.output.split())
    return seconds, cpu_s


def _targets(target: Path, links: Sequence[str]) -> list[tuple[str, str]]:
    return [(str(target / f"{number}.mp4"), link) for number, link in enumerate(links)]
