"""What a run remembers of the manifest that it has read, so that a quiet night need not read it again.

The file lies in the state folder and saves time, nothing else. It is believed only if the manifest
and all files of its `from:` hold the very bytes that were read then, under the same names, and this
is the same release; else, or if a bit of it is damaged, it is as if it were not there. And it keeps
no requests: all that can follow from it is that nothing is to be done. Whatever is to be done, and
above all paid for, is read from the manifest itself.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import sys
from dataclasses import asdict, astuple
from pathlib import Path
from typing import Any

from batch import __version__
from batch.errors import Problem
from batch.job import STATE_FOLDER
from batch.manifest.limits import Limits, Rate
from batch.manifest.model import Callback, Listed, Manifest, Outline
from batch.manifest.sources import Sources, digest, read_bytes

FILE = "manifest.json"
_HEAD_BYTES = 65_536  # of a manifest; whoever names the output folder further down waits longer
# A line of its own, as people write YAML, or between braces, as programs write JSON.
_SAID = rb"""(?:^%b *: +(["']?)(.+?)\1 *(?: #.*)?\r?$|[{,]\s*"%b"\s*:\s*(")([^"\\]+)")"""


def remember(folder: Path, manifest: Manifest) -> None:
    """Keep the outline of *manifest* in the state folder, if its files can be known again."""
    if not manifest.sources:
        return
    with contextlib.suppress(OSError):  # the next night reads the manifest, as this one has
        data = json.dumps(_encode(manifest), separators=(",", ":")).encode()
        part = folder / f"{FILE}.part"
        part.write_bytes(b"%s\n%s" % (digest(data).encode(), data))
        part.replace(folder / FILE)


def recall(path: Path, output_dir: Path | None) -> tuple[Path, Outline] | None:
    """Return the outline of the manifest at *path*, and the output folder that remembers it.

    *output_dir* is the folder if one was given; else a glance at the manifest has to find it.
    None if nothing is remembered, or not of exactly this.
    """
    try:
        sources = Sources()
        manifest = sources.read(path)
        folder = output_dir or _folder(path, manifest)
        seal, _, data = read_bytes(folder / STATE_FOLDER / FILE).partition(b"\n")
        if digest(data).encode() != seal:
            return None
        kept: dict[str, Any] = json.loads(data)
        if kept["reader"] != _reader() or kept["path"] != os.fspath(path):
            return None
        for name, _ in kept["sources"][1:]:
            sources.read(Path(name))
        if sources.seen() != tuple(map(tuple, kept["sources"])):
            return None
        return folder, _decode(path, kept)
    except (OSError, ValueError, LookupError, TypeError):
        return None


def _folder(path: Path, manifest: bytes) -> Path:
    """Guess where the output goes; wrong at worst, and then nothing is found there."""
    head = manifest[:_HEAD_BYTES]
    output_dir = _said(b"output_dir", head)
    if output_dir is not None:
        return path.parent / output_dir
    return Path("outputs") / (_said(b"name", head) or path.stem)


def _said(key: bytes, head: bytes) -> str | None:
    found = re.search(_SAID % (key, key), head, re.MULTILINE)
    return None if found is None else (found[2] or found[4]).decode()


def _reader() -> str:
    """Return what tells the code that reads manifests from all other: ours, and Python's.

    The release alone would not do for whoever works on it: its number stays, its files change.
    """
    with os.scandir(Path(__file__).parent) as entries:
        files = sorted(
            (entry.name, found.st_size, found.st_mtime_ns)
            for entry in entries
            if entry.name.endswith(".py")
            for found in (entry.stat(),)
        )
    return digest(repr((__version__, sys.version, files)).encode())


def _encode(manifest: Manifest) -> dict[str, Any]:
    limits = asdict(manifest.limits)
    return {
        "reader": _reader(),
        "path": os.fspath(manifest.path),
        "sources": manifest.sources,
        "name": manifest.name,
        "limits": limits | {"given": sorted(manifest.limits.given)},
        "callback": None if manifest.callback is None else astuple(manifest.callback),
        "output_dir": None if manifest.output_dir is None else os.fspath(manifest.output_dir),
        "base_url": manifest.base_url,
        "warnings": [astuple(problem) for problem in manifest.warnings],
        "jobs": [(job.id, job.fingerprint, job.tags) for job in manifest.jobs],
    }


def _decode(path: Path, kept: dict[str, Any]) -> Outline:
    limits = kept["limits"]
    limits |= {"submit_rate": Rate(**limits["submit_rate"]), "given": frozenset(limits["given"])}
    return Outline(
        path=path,
        name=kept["name"],
        jobs=tuple([Listed(id_, print_, tuple(tags)) for id_, print_, tags in kept["jobs"]]),
        limits=Limits(**limits),
        callback=None if kept["callback"] is None else Callback(*kept["callback"]),
        output_dir=None if kept["output_dir"] is None else Path(kept["output_dir"]),
        base_url=kept["base_url"],
        warnings=tuple(Problem(*problem) for problem in kept["warnings"]),
    )
