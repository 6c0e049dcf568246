"""The files beside the videos, and index.json: what they say, and that they go with their video."""

from __future__ import annotations

import errno
import hashlib
import json
import xml.etree.ElementTree as ET
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from batch.library.derived import renew
from batch.library.prune import Wanted, carry_out, find
from batch.manifest.model import Keep
from batch.output.folder import open_folder

BOTH = {"output": {"sidecar": "both"}}
EXT = "{http://iptc.org/std/Iptc4xmpExt/2008-02-29/}"
SOURCE = "http://cv.iptc.org/newscodes/digitalsourcetype/trainedAlgorithmicMedia"
FREE = b"\0\0\0\x0cfreemine"  # a box that an editor may leave behind the rest
FOX = {"id": "fox", "prompt": "a fox", "tags": ["night"]}


def said(desk: Any, name: str) -> dict[str, Any]:
    read: dict[str, Any] = json.loads((desk.root / name).read_text("utf-8"))
    return read


def properties(path: Path) -> dict[str, str]:
    """Return the properties of an XMP packet."""
    tree = ET.fromstring(path.read_bytes())
    return {e.tag.removeprefix(EXT): e.text or "" for e in tree.iter() if e.tag.startswith(EXT)}


def derived(desk: Any) -> dict[str, tuple[bytes, int]]:
    """Read every derived file, with its inode: a file that is not written keeps it."""
    names = [p for p in desk.root.rglob("*") if p.name.endswith((".json", ".xmp"))]
    return {str(p.relative_to(desk.root)): (p.read_bytes(), p.stat().st_ino) for p in names}


async def test_sidecars_say_what_the_video_is(desk: Any) -> None:
    desk.extra = BOTH
    async with desk.sandbox() as box:
        await desk.run(box, [FOX])
    json_said = said(desk, "videos/fox.json")
    (row,) = desk.rows
    assert row.items() <= json_said.items()
    assert {name: value for name, value in json_said.items() if name not in row} == {
        "versions": [],
        "digital_source_type": SOURCE,
        "ai_system": "Kling",
        "ai_system_version": "kling-v2-6",
        "ai_prompt": "a fox",
    }
    assert properties(desk.root / "videos/fox.mp4.xmp") == {
        "DigitalSourceType": SOURCE,
        "AISystemUsed": "Kling",
        "AISystemVersionUsed": "kling-v2-6",
        "AIPromptInformation": "a fox",
    }


async def test_index_lists_videos_missing_and_orphans(desk: Any) -> None:
    desk.extra = BOTH
    bad = {"id": "bad", "prompt": "sandbox:moderation"}
    async with desk.sandbox() as box:
        await desk.run(box, [FOX, {"id": "old", "prompt": "a deer"}])
        summary = await desk.run(box, [bad, {"id": "a/new", "prompt": "a hare"}, FOX])
    index = said(desk, "index.json")
    assert (index["schema"], index["name"], index["run_id"]) == (1, "night", summary.run_id)
    assert [item["job_id"] for item in index["videos"]] == ["a/new", "fox"]
    assert (index["missing"], index["orphans"]) == (["bad"], ["old"])
    for item in index["videos"]:
        data = (desk.root / item["file"]).read_bytes()
        assert (item["bytes"], item["sha256"]) == (len(data), hashlib.sha256(data).hexdigest())
    assert index["videos"][1]["tags"] == ["night"]


async def test_former_version_keeps_its_own_sidecars(desk: Any) -> None:
    desk.extra = BOTH
    async with desk.sandbox() as box:
        await desk.run(box, [FOX])
        before = said(desk, "videos/fox.json")
        await desk.run(box, [{**FOX, "prompt": "a red fox"}])
    now = said(desk, "videos/fox.json")
    (version,) = now["versions"]
    assert (now["prompt"], version["sha256"]) == ("a red fox", before["sha256"])
    stem = version["file"].removesuffix(".mp4")
    former = said(desk, f"{stem}.json")
    assert former == {**before, "file": version["file"]}
    assert properties(desk.root / f"{stem}.mp4.xmp")["AIPromptInformation"] == "a fox"
    assert said(desk, "index.json")["videos"][0]["versions"] == now["versions"]


async def test_version_deleted_by_hand_is_listed_no_more(desk: Any) -> None:
    """From the next night that makes something, of whatever job; and back on its disk, it is again."""
    desk.extra = BOTH
    red, other = {**FOX, "prompt": "a red fox"}, {"id": "owl", "prompt": "an owl"}
    async with desk.sandbox() as box:
        await desk.run(box, [FOX])
        await desk.run(box, [red])
        (version,) = said(desk, "videos/fox.json")["versions"]
        file, away = desk.root / version["file"], desk.root / "away.mp4"
        file.rename(away)
        before = derived(desk)
        await desk.run(box, [red])
        assert derived(desk) == before, "a night without a row writes nothing"
        await desk.run(box, [red, other])
        assert said(desk, "videos/fox.json")["versions"] == []
        away.rename(file)
        await desk.run(box, [red, {**other, "prompt": "a white owl"}])
    assert said(desk, "videos/fox.json")["versions"] == [version]


async def test_sidecars_move_with_their_video(desk: Any) -> None:
    """Also where names go round in a circle."""
    desk.extra = BOTH
    hare = {"id": "hare", "prompt": "a hare"}
    async with desk.sandbox() as box:
        await desk.run(box, [FOX, hare])
        jobs = [{**FOX, "id": "hare"}, {**hare, "id": "den/fox"}]
        summary = await desk.run(box, jobs, is_checked=False)
    assert summary.tasks_created == 0
    assert sorted(desk.videos) == [
        *("den/fox.json", "den/fox.mp4", "den/fox.mp4.xmp"),
        *("hare.json", "hare.mp4", "hare.mp4.xmp"),
    ]
    assert said(desk, "videos/hare.json")["prompt"] == "a fox"
    assert said(desk, "videos/hare.json")["job_id"] == "hare"
    assert said(desk, "videos/den/fox.json")["prompt"] == "a hare"
    assert [item["job_id"] for item in said(desk, "index.json")["videos"]] == ["hare", "den/fox"]


async def test_missing_video_of_a_renamed_job_leaves_no_sidecar(desk: Any) -> None:
    """It is fetched to its new name: there is nothing to move, but for what was beside it."""
    desk.extra = BOTH
    new = {**FOX, "prompt": "a red fox"}
    async with desk.sandbox(clip="prompt") as box:
        for job in (FOX, new):
            await desk.run(box, [job])
        for video in desk.root.rglob("*.mp4"):
            video.unlink()
        jobs = [{**FOX, "id": "first"}, {**new, "id": "second"}]
        summary = await desk.run(box, jobs, is_checked=False)
    assert (summary.exit_code, summary.tasks_created) == (0, 0)
    assert {path.name for path in desk.root.rglob("*.json")} == {
        *("first.json", "second.json", "index.json"),
    }
    assert len(list(desk.root.rglob("*.xmp"))) == 2


async def test_death_in_prune_leaves_no_sidecar_alone(
    desk: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever looks for strays finds the video; nobody would look for the files beside it."""
    desk.extra = BOTH
    unlink = Path.unlink

    def die_at_videos(path: Path, *, missing_ok: bool = False) -> None:
        if path.suffix == ".mp4":
            raise KeyboardInterrupt
        unlink(path, missing_ok=missing_ok)

    async with desk.sandbox() as box:
        await desk.run(box, [FOX])
    with open_folder(desk.root, sandbox=False, now=9.0) as folder:
        wanted = Wanted(orphans=True, delete=True)
        found = find(folder.layout, folder.database, [], wanted, 9.0)
        monkeypatch.setattr(Path, "unlink", die_at_videos)
        with pytest.raises(KeyboardInterrupt):
            await carry_out(folder, found.work, 9.0)
    assert list(desk.videos) == ["fox.mp4"]


async def test_death_in_prune_leaves_no_listed_version(
    desk: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What it had deleted is in no file beside the videos after the next run."""
    desk.extra = BOTH
    new = {**FOX, "prompt": "a red fox"}
    unlink = Path.unlink

    def die_after_videos(path: Path, *, missing_ok: bool = False) -> None:
        unlink(path, missing_ok=missing_ok)
        if path.suffix == ".mp4":
            raise KeyboardInterrupt

    async with desk.sandbox() as box:
        await desk.run(box, [FOX])
        await desk.run(box, [new])
        with open_folder(desk.root, sandbox=False, now=9.0) as folder:
            wanted = Wanted(versions=True, delete=True, keep=Keep(versions=0))
            found = find(folder.layout, folder.database, desk.manifest([new]).jobs, wanted, 9.0)
            with monkeypatch.context() as patched:
                patched.setattr(Path, "unlink", die_after_videos)
                with pytest.raises(KeyboardInterrupt):
                    await carry_out(folder, found.work, 9.0)
        await desk.run(box, [new], is_checked=False)
    assert said(desk, "videos/fox.json")["versions"] == []
    assert said(desk, "index.json")["videos"][0]["versions"] == []


async def test_night_without_a_row_writes_nothing(desk: Any) -> None:
    desk.extra = BOTH
    async with desk.sandbox() as box:
        await desk.run(box, [FOX])
        before = derived(desk)
        await desk.run(box, [FOX])
        await desk.run(box, [{**FOX, "tags": ["day"]}])
        assert derived(desk) == before
        await desk.run(box, [FOX, {"id": "new", "prompt": "a hare"}])
        after = derived(desk)
    assert {name for name in before if before[name] != after[name]} == {"index.json"}


async def test_edit_is_told_by_the_next_night(desk: Any) -> None:
    """Also if nothing else has changed; the night after that writes nothing."""
    desk.extra = BOTH
    async with desk.sandbox() as box:
        await desk.run(box, [FOX])
        video = desk.root / "videos/fox.mp4"
        video.write_bytes(data := video.read_bytes() + FREE)
        await desk.run(box, [FOX], is_checked=False)
        edited = {"bytes": len(data), "sha256": hashlib.sha256(data).hexdigest()}
        assert edited.items() <= said(desk, "videos/fox.json").items()
        assert edited.items() <= said(desk, "index.json")["videos"][0].items()
        before = derived(desk)
        await desk.run(box, [FOX], is_checked=False)
        assert derived(desk) == before


async def test_former_version_that_another_job_takes_over_is_listed_there(desk: Any) -> None:
    desk.extra = BOTH
    new, old = {**FOX, "prompt": "a red fox"}, {**FOX, "id": "old"}
    async with desk.sandbox() as box:
        await desk.run(box, [FOX])
        await desk.run(box, [new])
        assert len(said(desk, "videos/fox.json")["versions"]) == 1
        summary = await desk.run(box, [new, old], is_checked=False)
    assert summary.tasks_created == 0
    assert said(desk, "videos/fox.json")["versions"] == []
    assert [item["versions"] for item in said(desk, "index.json")["videos"]] == [[], []]


async def test_without_asking_nothing_is_written(desk: Any) -> None:
    async with desk.sandbox() as box:
        await desk.run(box, [FOX])
        assert derived(desk) == {}
        desk.extra = {"output": {"index": True}}
        await desk.run(box, [FOX])
        assert list(derived(desk)) == ["index.json"]
        desk.extra = {"output": {"sidecar": "xmp", "index": False}}
        await desk.run(box, [FOX])
    assert sorted(derived(desk)) == ["index.json", "videos/fox.mp4.xmp"]


async def test_file_of_another_origin_stays(desk: Any) -> None:
    """A person's notes, or an XMP that another program has written meanwhile."""
    desk.extra = BOTH
    notes, edited = desk.root / "videos/fox.json", desk.root / "videos/fox.mp4.xmp"
    async with desk.sandbox() as box:
        notes.parent.mkdir(parents=True)
        notes.write_text('{"schema": 1, "mine": true}')
        summary = await desk.run(box, [FOX])
        assert notes.read_text() == '{"schema": 1, "mine": true}'
        assert summary.exit_code == 0
        assert summary.warnings == (
            "videos/fox.json was not written by kling-batch, and stays as it is",
        )
        edited.write_text(edited.read_text().replace('x:xmptk="kling-batch"', 'x:xmptk="Other"'))
        await desk.run(box, [{**FOX, "prompt": "a red fox"}])
    assert properties(edited)["AIPromptInformation"] == "a fox"
    assert said(desk, "index.json")["videos"][0]["prompt"] == "a red fox"


async def test_what_cannot_be_written_is_written_by_the_next_run(desk: Any) -> None:
    desk.extra = BOTH
    async with desk.sandbox() as box:
        (desk.root / "videos/fox.json").mkdir(parents=True)
        summary = await desk.run(box, [FOX])
        assert summary.exit_code == 0
        (warning,) = summary.warnings
        assert warning.startswith("videos/fox.json (Is a directory) cannot be written")
        (desk.root / "videos/fox.json").rmdir()
        assert (await desk.run(box, [FOX])).warnings == ()
    assert said(desk, "videos/fox.json")["prompt"] == "a fox"


async def test_folder_that_cannot_be_flushed_is_a_warning(
    desk: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The videos are there and paid for; the next run writes what is beside them again."""
    desk.extra = BOTH
    fails = True

    def refuse(folder: Path) -> None:
        if fails and folder.name == "videos":
            raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr("batch.library.derived.disk", SimpleNamespace(flush=refuse))
    async with desk.sandbox() as box:
        summary = await desk.run(box, [FOX])
        assert summary.exit_code == 0
        (warning,) = summary.warnings
        assert "videos (Input/output error) cannot be written; the next run tries again" in warning
        fails = False
        assert (await desk.run(box, [FOX])).warnings == ()
    assert said(desk, "videos/fox.json")["prompt"] == "a fox"


@pytest.mark.parametrize(
    "prompt",
    [
        "a & b < c > d \"e\" 'f' ]]>",
        "line\nbreak and\ttab",
        "狐狸 🦊 é",
        "<?xpacket end?> {properties} {0} %s",
    ],
)
async def test_every_prompt_is_told_as_it_is(desk: Any, prompt: str) -> None:
    desk.extra = BOTH
    async with desk.sandbox() as box:
        await desk.run(box, [{"id": "x", "prompt": prompt}])
    assert said(desk, "videos/x.json")["ai_prompt"] == prompt
    assert properties(desk.root / "videos/x.mp4.xmp")["AIPromptInformation"] == prompt


async def test_video_is_the_providers_byte_for_byte(desk: Any) -> None:
    desk.extra = BOTH
    async with desk.sandbox() as box:
        await desk.run(box, [FOX])
    data = (desk.root / "videos/fox.mp4").read_bytes()
    assert hashlib.sha256(data).hexdigest() == desk.rows[0]["sha256"]


async def test_renewed_sidecars_are_of_the_kinds_of_the_last_run(desk: Any) -> None:
    """As after a restore, which knows no manifest."""
    desk.extra = {"output": {"sidecar": "xmp"}}
    async with desk.sandbox() as box:
        await desk.run(box, [FOX])
        before = derived(desk)
        (desk.root / "videos/fox.mp4.xmp").unlink()
        with open_folder(desk.root, sandbox=False, now=0.0) as folder:
            assert renew(folder, ["fox", "unknown"]) == []
    assert {name: data for name, (data, _) in derived(desk).items()} == {
        name: data for name, (data, _) in before.items()
    }
