"""The files beside a video that say what it is. All of them can be made again from the state.

`fox.mp4` has `fox.json` (its row and more) and `fox.mp4.xmp` (what asset managers read). The video
itself is never written to: its hash would change, and any signature in it would be broken.
"""

from __future__ import annotations

import html
import json
import os
import re
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from batch.output import disk
from batch.output.layout import Layout, version_time

ENDS = {"json": ".json", "xmp": ".mp4.xmp"}  # in place of a video's .mp4
SOURCE_TYPE = "http://cv.iptc.org/newscodes/digitalsourcetype/trainedAlgorithmicMedia"
AI_SYSTEM = "Kling"
TOOLKIT = "kling-batch"
_NOT_IN_XML = "[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]"
# The names of IPTC Video Metadata Hub and of the photo standard 2025.1.
_XMP = f"""\
<?xpacket begin="\ufeff" id="W5M0MpCehiHzreSzNTczkc9d"?>
<x:xmpmeta xmlns:x="adobe:ns:meta/" x:xmptk="{TOOLKIT}">
 <rdf:RDF xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#">
  <rdf:Description rdf:about="" xmlns:Iptc4xmpExt="http://iptc.org/std/Iptc4xmpExt/2008-02-29/">
{{properties}}
  </rdf:Description>
 </rdf:RDF>
</x:xmpmeta>
<?xpacket end="w"?>
"""


class NotOursError(Exception):
    """A file of this name is there, and somebody else has written it."""


def beside(file: str, kinds: Iterable[str] = ENDS) -> Iterator[str]:
    """Yield the names of the files beside a video."""
    for kind in kinds:
        yield file.removesuffix(".mp4") + ENDS[kind]


def versions(root: Path, folder: str) -> Iterator[str]:
    """Yield the former versions in *folder* that have a file beside them, whether they are here or not."""
    for kind in ENDS.values():
        for path in (root / folder).glob(f"*{kind}"):
            if version_time(path.name) is not None:
                yield f"{folder}/{path.name.removesuffix(kind)}.mp4"


def to_json(row: dict[str, Any], versions: list[dict[str, Any]]) -> bytes:
    """Return `<id>.json`: the row of a video, its former versions, and how it was made."""
    said = {
        **row,
        "versions": versions,
        "digital_source_type": SOURCE_TYPE,
        "ai_system": AI_SYSTEM,
        "ai_system_version": row["options"].get("model_name"),
        "ai_prompt": row["prompt"],
    }
    return f"{json.dumps(said, ensure_ascii=False, indent=1)}\n".encode()


def to_xmp(row: dict[str, Any]) -> bytes:
    """Return `<id>.mp4.xmp`: that a model made the video, which one, and of what prompt."""
    properties = {
        "DigitalSourceType": SOURCE_TYPE,
        "AISystemUsed": AI_SYSTEM,
        "AISystemVersionUsed": row["options"].get("model_name"),
        "AIPromptInformation": row["prompt"],
    }
    lines = (
        f"   <Iptc4xmpExt:{name}>{_text(value)}</Iptc4xmpExt:{name}>"
        for name, value in properties.items()
        if value is not None
    )
    return _XMP.format(properties="\n".join(lines)).encode()


def write(layout: Layout, name: str, data: bytes) -> Path | None:
    """Write *name* whole or not at all; return its folder, to be flushed, if it was written.

    Raises:
        NotOursError: a file of another origin has that name; it stays.
        OSError: the disk or the permissions.
    """
    target = layout.root / name
    if target.exists() and not (target.is_file() or target.is_dir()):  # to read a pipe is to wait
        raise NotOursError(name)
    try:
        before = target.read_bytes()
    except FileNotFoundError:
        before = b""
    if before == data:
        return None
    if not is_ours(before):
        raise NotOursError(name)
    disk.make(target.parent)
    with layout.derived_part.open("wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
    disk.move(layout.derived_part, target)
    return target.parent


def follow(root: Path, old: str, new: str) -> None:
    """Move the files beside the video *old* to where they belong beside *new*, which is there.

    A file of another origin keeps its place there, and stays behind here.

    Raises:
        OSError: the disk or the permissions.
    """
    for source, target in zip(beside(old), beside(new), strict=True):
        if not _is_own_file(root / source):
            continue
        if not (root / target).exists() or _is_own_file(root / target):
            disk.make((root / target).parent)  # where the video is only in a bucket
            disk.move(root / source, root / target)
        else:
            (root / source).unlink()
        disk.flush((root / source).parent)


def drop(root: Path, file: str) -> None:
    """Remove the files beside the video *file*, which is gone or about to go.

    Raises:
        OSError: the disk or the permissions.
    """
    for name in beside(file):
        if _is_own_file(root / name):
            (root / name).unlink()
            disk.flush((root / name).parent)


def is_ours(data: bytes) -> bool:
    """Return whether a file was written here. One of zeros is what a power cut leaves."""
    if not data.strip(b"\0"):
        return True
    if f'x:xmptk="{TOOLKIT}"'.encode() in data:
        return True
    try:
        said = json.loads(data)
    except ValueError:
        return False
    return (
        isinstance(said, dict) and "schema" in said and {"job_id", "videos"} & said.keys() != set()
    )


def _is_own_file(path: Path) -> bool:
    return path.is_file() and is_ours(path.read_bytes())


def _text(value: str) -> str:
    """Return a text as XML holds it: a carriage return would become a line end."""
    # Not xml.sax.saxutils, which loads ssl and http.client.
    text = html.escape(re.sub(_NOT_IN_XML, "\ufffd", value), quote=False)
    return text.replace("\r", "&#13;")
