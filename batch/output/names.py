"""Second names of videos that are, or were, on their way from one name to another.

Those of a move are noted before the first of them is made, and again with the commit that moves the
videos. The next process that opens the folder unlinks what a death has left of them, before all else.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Iterator
from pathlib import Path

from batch.attempt import Attempt
from batch.job import folded, video_path
from batch.output import disk
from batch.output.layout import VERSIONS, version_folder, version_time
from batch.output.state import Fact
from batch.output.store import Store

TO_UNLINK = "moved"  # the fact: [[name to unlink, where its video is], …]


def note(pairs: Iterable[tuple[str, str]]) -> Fact:
    """Return the fact that names are to be unlinked, each with where its video is."""
    return Fact(TO_UNLINK, json.dumps(list(pairs)))


def clear_noted(root: Path, database: Store) -> None:
    """Unlink the names that are noted.

    Raises:
        OSError: the disk or the permissions; they stay noted.
    """
    left = json.loads(database.fact(TO_UNLINK) or "[]")
    if left:
        clear(root, database, left)
        database.write([note([])])


def second_names(root: Path, file: str, holders: Iterable[Attempt]) -> Iterator[str]:
    """Yield the other names that the video of *holders* at *file* still has.

    A run did not come to drop the name under versions/ of a video that it had brought back, or to put
    the next one in the place of one that it had given such a name. An attempt may have them all the same.
    """
    names: set[str] = set()
    for holder in holders:
        names.add(getattr(holder.state, "came_from", None) or file)
        if file.startswith(f"{VERSIONS}/"):
            names.add(video_path(holder.job_id))
        versions = (root / version_folder(holder.job_id)).glob("*.mp4")
        names |= {path.relative_to(root).as_posix() for path in versions if version_time(path.name)}
    for name in sorted(names - {file}):
        if is_one_video(root / file, root / name):
            yield name


def clear(root: Path, database: Store, pairs: Iterable[tuple[str, str]]) -> None:
    """Unlink each name that no attempt has, where its video is under the other one.

    Raises:
        OSError: the disk or the permissions.
    """
    from batch.output import sidecar  # noqa: PLC0415 - most nights move nothing

    for name, kept in pairs:
        if database.holders_of(name):
            continue
        if is_one_video(root / name, root / kept):
            sidecar.follow(root, name, kept)
            _drop(root / name, root / kept)
        elif not ((root / name).is_file() or (root / kept).is_file()):  # both are in the bucket
            sidecar.follow(root, name, kept)


def is_one_video(one: Path, other: Path) -> bool:
    """Return whether both hold the same; not, where one cannot be read."""
    import filecmp  # noqa: PLC0415 - most nights move nothing

    try:
        return one.samefile(other) or filecmp.cmp(one, other, shallow=False)
    except OSError:
        return False


def _drop(name: Path, kept: Path) -> None:
    """Remove *name*; where both are one name to the file system, spell it as *kept*."""
    if _is_one_name(name, kept):
        name.rename(kept)
    else:
        name.unlink()
    disk.flush(name.parent)


def _is_one_name(name: Path, kept: Path) -> bool:
    """Return whether two spellings are one name to the file system: to unlink it loses the video."""
    if folded(str(name)) != folded(str(kept)) or not name.samefile(kept):
        return False
    if name.stat().st_nlink == 1:
        return True
    names = os.listdir(kept.parent)  # noqa: PTH208
    return name.parent.samefile(kept.parent) and not {name.name, kept.name} <= set(names)
