"""A library with a bucket, on a real S3 server: what is where after each night, and what it asked."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import pytest
from s3 import Bucket

from batch.clock import SystemClock
from batch.errors import UsageError
from batch.library.derived import renew
from batch.library.restore import choose, restore, versions_of
from batch.output.folder import open_folder
from batch.run.execute import execute
from batch.run.planner import open_planned_run
from batch.settings import resolve

FOX, OWL = {"id": "fox", "prompt": "a fox"}, {"id": "owl", "prompt": "an owl"}
NEW_FOX = {**FOX, "prompt": "a fox at night"}


def sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def local(root: Path) -> set[str]:
    """Return the videos that are here."""
    return {path.relative_to(root).as_posix() for path in root.rglob("*.mp4")}


async def test_video_is_uploaded_as_it_landed(desk: Any, bucket: Bucket) -> None:
    async with desk.sandbox(clip="prompt") as box:
        summary = await desk.run(box, [FOX, OWL])
        assert (summary.exit_code, summary.uploads["uploaded"]) == (0, 2)
        assert set(bucket.objects) == {"videos/fox.mp4", "videos/owl.mp4"}
        for job_id, row in desk.last.items():
            assert sha256(bucket.objects[f"videos/{job_id}.mp4"]) == row["sha256"]
            marks = bucket.metadata[f"videos/{job_id}.mp4"]
            assert marks["content-type"] == "video/mp4"
            assert marks["x-amz-meta-sha256"] == row["sha256"]
            assert marks["x-amz-meta-attempt"] == row["external_task_id"]
        assert local(desk.root) == set(bucket.objects)
        assert desk.plan(box, [FOX, OWL]) == {"unchanged": 2}


async def test_quiet_night_asks_the_bucket_nothing(desk: Any, bucket: Bucket) -> None:
    async with desk.sandbox() as box:
        await desk.run(box, [FOX])
        bucket.requests.clear()
        summary = await desk.run(box, [FOX])
        assert summary.exit_code == 0
        assert bucket.requests == []


async def test_changed_video_keeps_the_former_one(desk: Any, bucket: Bucket) -> None:
    """It is copied within the bucket, and never sent twice."""
    async with desk.sandbox(clip="prompt") as box:
        await desk.run(box, [FOX])
        bucket.requests.clear()
        await desk.run(box, [NEW_FOX])
        old, new = (row["sha256"] for row in desk.rows)
        found = {name: sha256(data) for name, data in bucket.objects.items()}
        (version,) = set(found) - {"videos/fox.mp4"}
        assert found == {"videos/fox.mp4": new, version: old}
        assert version in local(desk.root)
        assert bucket.asked("PUT") == [version, "videos/fox.mp4"]


async def test_removed_video_counts_as_here(desk: Any, bucket: Bucket) -> None:
    desk.extra["output"]["local"] = "remove"
    async with desk.sandbox(clip="prompt") as box:
        await desk.run(box, [FOX, OWL], is_checked=False)
        await desk.run(box, [NEW_FOX, OWL], is_checked=False)
        assert local(desk.root) == set()
        assert len(bucket.objects) == 3
        bucket.requests.clear()
        summary = await desk.run(box, [NEW_FOX, OWL], is_checked=False)
        assert (summary.exit_code, summary.planned["unchanged"]) == (0, 2)
        assert bucket.requests == []
        assert box.stats.created == 3
        desk.check_secrets()


# -- moves, versions, restore, prune


async def test_renamed_job_moves_its_object(desk: Any, bucket: Bucket) -> None:
    async with desk.sandbox(clip="prompt") as box:
        await desk.run(box, [FOX])
        (data,) = bucket.objects.values()
        bucket.requests.clear()
        await desk.run(box, [{**FOX, "id": "red-fox"}], is_checked=False)
        assert bucket.objects == {"videos/red-fox.mp4": data}
        assert bucket.asked("PUT") == ["videos/red-fox.mp4"]
        assert bucket.requests[-1] == ("POST", "")  # which deletes, after the copy is there
        assert box.stats.created == 1


async def test_swapped_names_of_removed_videos_swap(desk: Any, bucket: Bucket) -> None:
    """No content is ever without a place, although a copy overwrites what is there."""
    desk.extra["output"]["local"] = "remove"
    async with desk.sandbox(clip="prompt") as box:
        await desk.run(box, [FOX, OWL], is_checked=False)
        before = bucket.objects
        swapped = [{**FOX, "id": "owl"}, {**OWL, "id": "fox"}]
        summary = await desk.run(box, swapped, is_checked=False)
        assert (summary.exit_code, summary.tasks_created) == (0, 0)
        assert bucket.objects == {
            "videos/fox.mp4": before["videos/owl.mp4"],
            "videos/owl.mp4": before["videos/fox.mp4"],
        }
        assert desk.plan(box, swapped) == {"unchanged": 2}
        bucket.requests.clear()
        await desk.run(box, swapped, is_checked=False)
        assert bucket.requests == []


async def test_lost_disk_is_filled_from_the_bucket(desk: Any, bucket: Bucket) -> None:
    """The provider is not asked: it keeps a video for thirty days, a bucket for ever."""
    async with desk.sandbox(clip="prompt") as box:
        await desk.run(box, [FOX, OWL])
        for path in desk.videos.values():
            path.unlink()
        asked = box.stats.queries
        assert desk.plan(box, [FOX, OWL]) == {"fetch": 2}
        summary = await desk.run(box, [FOX, OWL])
        assert (summary.exit_code, summary.tasks_created, summary.outcomes) == (
            0,
            0,
            {"succeeded": 2},
        )
        assert box.stats.queries == asked
        assert local(desk.root) == set(bucket.objects)


# -- what goes wrong


async def test_foreign_object_is_named_and_stays(desk: Any, bucket: Bucket) -> None:
    bucket.put("videos/fox.mp4", b"somebody's own")
    async with desk.sandbox() as box:
        summary = await desk.run(box, [FOX, OWL])
        assert (summary.exit_code, summary.outcomes) == (1, {"succeeded": 2})
        assert summary.uploads["foreign"] == ["videos/fox.mp4"]
        (warning,) = summary.warnings
        assert warning.startswith(
            f"{bucket.url}/videos/fox.mp4: an object of another origin is there"
        )
        assert bucket.objects["videos/fox.mp4"] == b"somebody's own"
        assert "videos/owl.mp4" in bucket.objects
        bucket.delete("videos/fox.mp4")
        summary = await desk.run(box, [FOX, OWL])
        assert (summary.exit_code, summary.tasks_created) == (0, 0)
        assert set(bucket.objects) == {"videos/fox.mp4", "videos/owl.mp4"}


async def test_unreachable_bucket_is_tried_thrice_and_left(
    desk: Any, bucket: Bucket, monkeypatch: pytest.MonkeyPatch
) -> None:
    bucket.refuses["PUT", ""] = "503 Slow Down", "SlowDown"
    async with desk.sandbox() as box:
        summary = await desk.run(box, [FOX])
        assert (summary.exit_code, summary.outcomes) == (1, {"succeeded": 1})
        assert len(bucket.asked("PUT")) == 6  # as it landed, and at the end
        (warning,) = summary.warnings
        assert warning == (
            f"{bucket.url}: 1 file not uploaded (it answers 503); the next run tries again"
        )
        bucket.refuses.clear()
        summary = await desk.run(box, [FOX])
        assert (summary.exit_code, summary.tasks_created) == (0, 0)
        assert set(bucket.objects) == {"videos/fox.mp4"}
        assert box.stats.created == 1


async def test_denied_access_says_what_to_check(desk: Any, bucket: Bucket) -> None:
    bucket.refuses["PUT", ""] = "403 Forbidden", "SignatureDoesNotMatch"
    async with desk.sandbox() as box:
        summary = await desk.run(box, [FOX])
        assert summary.exit_code == 1
        assert (
            "it denies access (403): check the credentials and their rights" in summary.warnings[0]
        )
        desk.check_secrets()


async def test_overwritten_object_is_left_to_its_owner(desk: Any, bucket: Bucket) -> None:
    """The e_tag that is recorded is not the one that is there: nothing is put."""
    async with desk.sandbox(clip="prompt") as box:
        await desk.run(box, [FOX])
        bucket.put("videos/fox.mp4", b"somebody's own")
        summary = await desk.run(box, [NEW_FOX])
        assert (summary.exit_code, summary.uploads["foreign"]) == (1, ["videos/fox.mp4"])
        assert bucket.objects["videos/fox.mp4"] == b"somebody's own"


# -- what is listed


class Later:
    """A clock that is days ahead."""

    def __init__(self, days: float) -> None:
        self._clock, self._ahead_s = SystemClock(), days * 86_400.0

    def now(self) -> float:
        return self._clock.now() + self._ahead_s

    def __getattr__(self, name: str) -> Any:
        return getattr(self._clock, name)


async def test_lost_object_is_found_missing_and_fetched(desk: Any, bucket: Bucket) -> None:
    """A week later one request lists the bucket; the provider still keeps the video."""
    desk.extra["output"]["local"] = "remove"
    async with desk.sandbox(clip="prompt") as box:
        await desk.run(box, [FOX, OWL], is_checked=False)
        lost = bucket.objects["videos/fox.mp4"]
        bucket.delete("videos/fox.mp4")
        desk.clock = Later(6.9)
        bucket.requests.clear()
        assert (await desk.run(box, [FOX, OWL], is_checked=False)).exit_code == 0
        assert bucket.requests == []
        desk.clock = Later(7.1)
        summary = await desk.run(box, [FOX, OWL], is_checked=False)
        assert bucket.asked("GET") == [""]
        assert (summary.exit_code, summary.uploads["lost"]) == (1, ["videos/fox.mp4"])
        assert "videos/fox.mp4: no longer in s3://" in summary.warnings[0]
        assert desk.plan(box, [FOX, OWL]) == {"fetch": 1, "unchanged": 1}
        summary = await desk.run(box, [FOX, OWL], is_checked=False)
        assert (summary.exit_code, summary.tasks_created) == (0, 0)
        assert bucket.objects["videos/fox.mp4"] == lost
        bucket.requests.clear()
        assert (await desk.run(box, [FOX, OWL], is_checked=False)).exit_code == 0
        assert bucket.requests == []
        assert box.stats.created == 2


async def test_lost_object_that_is_here_is_uploaded_again(desk: Any, bucket: Bucket) -> None:
    desk.extra["output"]["verify_every"] = "1d"
    async with desk.sandbox() as box:
        await desk.run(box, [FOX])
        bucket.delete("videos/fox.mp4")
        desk.clock = Later(1.1)
        summary = await desk.run(box, [FOX])
        assert (summary.exit_code, summary.uploads["uploaded"], summary.warnings) == (0, 1, ())
        assert set(bucket.objects) == {"videos/fox.mp4"}


async def test_put_whose_answer_was_lost_is_known_again(desk: Any, bucket: Bucket) -> None:
    """A death between put and commit: the object is ours by its metadata, and is not foreign."""
    async with desk.sandbox(clip="prompt") as box:
        await desk.run(box, [FOX])
        desk.sql("DELETE FROM uploads")
        summary = await desk.run(box, [NEW_FOX])
        assert (summary.exit_code, summary.uploads["foreign"]) == (0, [])
        assert {sha256(data) for data in bucket.objects.values()} == {
            row["sha256"] for row in desk.rows
        }


async def test_copy_whose_answer_was_lost_is_known_again(desk: Any, bucket: Bucket) -> None:
    """A death between copy and commit leaves no object that no record names."""
    async with desk.sandbox(clip="prompt") as box:
        await desk.run(box, [FOX])
        video = desk.root / "videos/fox.mp4"
        video.write_bytes(edited := (landed := video.read_bytes()) + b"\0\0\0\x0cfreemine")
        bucket.refuses["PUT", "videos/fox.mp4"] = "403 Forbidden", "AccessDenied"
        await desk.run(box, [FOX], is_checked=False)
        assert list(bucket.objects.values()) == [landed, landed]
        desk.sql("DELETE FROM uploads WHERE file LIKE 'versions/%'")
        bucket.refuses.clear()
        summary = await desk.run(box, [FOX], is_checked=False)
        assert (summary.exit_code, summary.uploads["foreign"]) == (0, [])
        assert sorted(bucket.objects.values()) == sorted([landed, edited])


async def test_other_library_in_the_same_place_is_foreign(desk: Any, bucket: Bucket) -> None:
    async with desk.sandbox(clip="prompt") as box:
        await desk.run(box, [FOX])
        before = bucket.objects
        desk.root = desk.tmp_path / "another"
        summary = await desk.run(box, [NEW_FOX])
        assert (summary.exit_code, summary.uploads["foreign"]) == (1, ["videos/fox.mp4"])
        assert bucket.objects == before


async def test_files_beside_videos_follow_them(desk: Any, bucket: Bucket) -> None:
    """`index.json` comes last, and only with all that it names."""
    desk.extra["output"] |= {"sidecar": "json", "local": "remove"}
    async with desk.sandbox(clip="prompt") as box:
        await desk.run(box, [FOX], is_checked=False)
        assert bucket.asked("PUT") == ["videos/fox.mp4", "videos/fox.json", "index.json"]
        assert bucket.metadata["index.json"]["content-type"] == "application/json"
        bucket.refuses["PUT", "owl.mp4"] = "503 Slow Down", "SlowDown"
        index = bucket.objects["index.json"]
        await desk.run(box, [FOX, OWL], is_checked=False)
        assert bucket.objects["index.json"] == index
        bucket.refuses.clear()
        await desk.run(box, [FOX, OWL], is_checked=False)
        assert b'"owl"' in bucket.objects["index.json"]
        assert {"videos/fox.json", "videos/owl.json"} <= set(bucket.objects)
        await desk.run(box, [OWL, {**FOX, "id": "red-fox"}], is_checked=False)
        names = {f"videos/{job}.{end}" for job in ("owl", "red-fox") for end in ("mp4", "json")}
        assert set(bucket.objects) == {*names, "index.json"}


async def test_files_beside_videos_follow_them_to_a_new_folder(desk: Any, bucket: Bucket) -> None:
    """The folder is not made for the video, which is only in the bucket."""
    desk.extra["output"] |= {"sidecar": "json", "local": "remove"}
    async with desk.sandbox(clip="prompt") as box:
        await desk.run(box, [FOX], is_checked=False)
        await desk.run(box, [{**FOX, "id": "set/fox"}], is_checked=False)
        await desk.run(box, [{**FOX, "id": "set/fox"}], is_checked=False)
        assert set(bucket.objects) == {"videos/set/fox.mp4", "videos/set/fox.json", "index.json"}
        assert json.loads(bucket.objects["videos/set/fox.json"])["file"] == "videos/set/fox.mp4"


async def test_files_beside_restored_version_follow_it(desk: Any, bucket: Bucket) -> None:
    """Also where nothing else is to be done: index.json is uploaded in the night that writes it."""
    desk.extra["output"] |= {"sidecar": "json", "local": "remove"}
    async with desk.sandbox(clip="prompt") as box:
        for job in (FOX, NEW_FOX):
            await desk.run(box, [job], is_checked=False)
        (former,) = (name for name in bucket.objects if name.endswith("Z.json"))
        with open_folder(desk.root, sandbox=False, now=SystemClock().now()) as folder:
            version = choose(versions_of(folder.database, "fox"), "fox", None)
            await restore(folder, version, SystemClock())
            assert renew(folder, ["fox"]) == []
        await desk.run(box, [NEW_FOX], is_checked=False)
        assert former not in bucket.objects
        assert json.loads(bucket.objects["index.json"])["videos"][0]["prompt"] == FOX["prompt"]
        assert bucket.objects["index.json"] == (desk.root / "index.json").read_bytes()


async def test_files_beside_edited_video_follow_it(desk: Any, bucket: Bucket) -> None:
    desk.extra["output"] |= {"sidecar": "json"}
    async with desk.sandbox() as box:
        await desk.run(box, [FOX])
        video = desk.root / "videos/fox.mp4"
        video.write_bytes(video.read_bytes() + b"\0\0\0\x0cfreemine")
        await desk.run(box, [FOX], is_checked=False)
        for name in ("videos/fox.mp4", "videos/fox.json", "index.json"):
            assert bucket.objects[name] == (desk.root / name).read_bytes()
        said = json.loads(bucket.objects["videos/fox.json"])
        assert said["bytes"] == len(bucket.objects["videos/fox.mp4"])


async def test_versions_of_another_bucket_are_not_listed(desk: Any, bucket: Bucket) -> None:
    """They are as long as it is the manifest's; a night with nothing else to do follows that, too."""
    target = desk.extra["output"]["target"]

    async def listed(box: Any, **output: str) -> list[list[str]]:
        desk.extra["output"] = {"sidecar": "json", **output}
        summary = await desk.run(box, [NEW_FOX], is_checked=False)
        assert (summary.exit_code, summary.tasks_created) == (0, 0)
        before = (desk.root / "index.json").stat().st_ino
        await desk.run(box, [NEW_FOX], is_checked=False)
        assert (desk.root / "index.json").stat().st_ino == before
        said = [
            json.loads((desk.root / name).read_bytes())
            for name in ("videos/fox.json", "index.json")
        ]
        return [
            [item["file"] for item in found["versions"]]
            for found in (said[0], said[1]["videos"][0])
        ]

    async with desk.sandbox(clip="prompt") as box:
        desk.extra["output"]["local"] = "remove"
        for job in (FOX, NEW_FOX):
            await desk.run(box, [job], is_checked=False)
        (version,) = (name for name in bucket.objects if name.endswith("Z.mp4"))
        assert await listed(box, target=target, local="remove") == [[version], [version]]
        assert await listed(box) == [[], []]
        assert await listed(box, target=target) == [[version], [version]]
        assert await listed(box, target=f"{target}/other") == [[], []]


async def test_edited_version_does_not_stay_beside_the_bucket(desk: Any, bucket: Bucket) -> None:
    """Else every night would list the whole bucket because of it."""
    desk.extra["output"]["local"] = "remove"
    async with desk.sandbox(clip="prompt") as box:
        for job in (FOX, NEW_FOX):
            await desk.run(box, [job], is_checked=False)
        (name,) = (name for name in bucket.objects if name.endswith("Z.mp4"))
        (desk.root / name).parent.mkdir(parents=True, exist_ok=True)
        edited = bucket.objects[name] + b"\0\0\0\x0cfreemine"
        (desk.root / name).write_bytes(edited)
        assert (await desk.run(box, [NEW_FOX], is_checked=False)).exit_code == 0
        assert (bucket.objects[name], local(desk.root)) == (edited, set())
        bucket.requests.clear()
        await desk.run(box, [NEW_FOX], is_checked=False)
        assert bucket.requests == []


async def test_edited_version_is_uploaded_as_it_is(desk: Any, bucket: Bucket) -> None:
    """No plan looks at it. One that is whole no more is named, so that somebody can mend that."""
    output = desk.extra.pop("output")
    async with desk.sandbox(clip="prompt") as box:
        for job in (FOX, NEW_FOX):
            await desk.run(box, [job])
        (version,) = (desk.root / "versions/fox").iterdir()
        name = version.relative_to(desk.root).as_posix()
        landed = version.read_bytes()
        version.write_bytes(edited := landed + b"\0\0\0\x0cfreemine")
        desk.extra["output"] = {**output, "sidecar": "json"}
        assert (await desk.run(box, [NEW_FOX], is_checked=False)).exit_code == 0
        assert bucket.objects[name] == edited
        await desk.run(box, [NEW_FOX], is_checked=False)
        (said,) = json.loads(bucket.objects["index.json"])["videos"][0]["versions"]
        assert (said["file"], said["sha256"]) == (name, sha256(edited))
        desk.extra["output"]["target"] += "/another"
        version.write_bytes(landed[:-9])
        summary = await desk.run(box, [NEW_FOX], is_checked=False)
        assert (summary.exit_code, summary.uploads["pending"]) == (1, 1)
        assert f"{name} is not what landed there" in summary.uploads["trouble"]
        version.unlink()
        assert (await desk.run(box, [NEW_FOX], is_checked=False)).exit_code == 0


async def test_edited_video_that_no_plan_looks_at_is_uploaded(desk: Any, bucket: Bucket) -> None:
    """A former version, and one whose job has left the manifest: the bucket has what is here."""
    async with desk.sandbox(clip="prompt") as box:
        for listed in ([FOX, OWL], [NEW_FOX]):
            await desk.run(box, listed)
        before = bucket.objects
        (version,) = (name for name in before if name.startswith("versions/"))
        for name in (version, "videos/owl.mp4"):
            (desk.root / name).write_bytes(before[name] + b"\0\0\0\x0cfreemine")
        summary = await desk.run(box, [NEW_FOX], is_checked=False)
        assert (summary.exit_code, summary.tasks_created) == (0, 0)
        for name in (version, "videos/owl.mp4", "videos/fox.mp4"):
            assert bucket.objects[name] == (desk.root / name).read_bytes()
        assert set(before.values()) <= set(bucket.objects.values()), "what they were stays"
        bucket.requests.clear()
        await desk.run(box, [NEW_FOX], is_checked=False)
        assert bucket.requests == []
        (desk.root / version).write_bytes(b"spoilt")
        there = bucket.objects[version]
        assert (await desk.run(box, [NEW_FOX], is_checked=False)).exit_code == 0
        assert bucket.objects[version] == there


async def test_edited_video_of_a_changed_job_is_uploaded(desk: Any, bucket: Bucket) -> None:
    """Also in the night that cannot pay for the new one."""
    async with desk.sandbox(clip="prompt") as box:
        await desk.run(box, [FOX])
        video = desk.root / "videos/fox.mp4"
        video.write_bytes(edited := video.read_bytes() + b"\0\0\0\x0cfreemine")
        await desk.run(box, [NEW_FOX], limits={"budget": 0.01}, is_checked=False)
        assert bucket.objects["videos/fox.mp4"] == edited
        assert box.stats.created == 1


async def test_files_first_asked_for_are_uploaded_at_once(desk: Any, bucket: Bucket) -> None:
    async with desk.sandbox() as box:
        await desk.run(box, [FOX])
        desk.extra["output"]["sidecar"] = "json"
        await desk.run(box, [FOX], is_checked=False)
        assert {"videos/fox.json", "index.json"} <= set(bucket.objects)


# -- what is refused


async def test_run_without_obstore_sends_nothing(
    desk: Any, bucket: Bucket, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("batch.target.find_spec", lambda _name: None)
    async with desk.sandbox() as box:
        with pytest.raises(UsageError, match=r"pip install 'kling-batch\[store\]'"):
            await desk.run(box, [FOX])
        assert box.stats.posts == 0


async def test_sandbox_of_a_run_uploads_nothing(desk: Any, bucket: Bucket) -> None:
    """Its videos are for trying out, and the bucket is a real one."""
    desk.limits["poll_interval"] = "10ms"
    manifest = desk.manifest([FOX])
    settings = resolve(manifest, {"output_dir": desk.root, "sandbox": True}, {})
    clock = SystemClock()
    with open_planned_run(manifest, settings, clock) as planned:
        summary = await execute(planned, [], clock)
    assert (summary.exit_code, summary.uploads) == (0, None)
    assert bucket.requests == []


# -- no record of the state takes the only copy of a video


async def test_local_copy_stays_until_the_bucket_was_asked(desk: Any, bucket: Bucket) -> None:
    """From keep to remove: what was uploaded long ago may be gone."""
    async with desk.sandbox(clip="prompt") as box:
        await desk.run(box, [FOX, OWL])
        before = bucket.objects
        bucket.delete("videos/fox.mp4")
        desk.extra["output"]["local"] = "remove"
        summary = await desk.run(box, [FOX, OWL], is_checked=False)
        assert (summary.exit_code, summary.uploads["uploaded"]) == (0, 1)
        assert bucket.objects == before


async def test_former_name_goes_once_the_new_is_there(desk: Any, bucket: Bucket) -> None:
    desk.extra["output"]["local"] = "remove"
    renamed = [{**FOX, "id": "red-fox"}]
    async with desk.sandbox(clip="prompt") as box:
        await desk.run(box, [FOX], is_checked=False)
        (data,) = bucket.objects.values()
        bucket.refuses["POST", ""] = "403 Forbidden", "AccessDenied"
        await desk.run(box, renamed, is_checked=False)
        assert set(bucket.objects) == {"videos/fox.mp4", "videos/red-fox.mp4"}
        bucket.delete("videos/red-fox.mp4")
        bucket.refuses.clear()
        await desk.run(box, renamed, is_checked=False)
        assert bucket.objects["videos/red-fox.mp4"] == data
        await desk.run(box, renamed, is_checked=False)
        assert bucket.objects == {"videos/red-fox.mp4": data}
        assert desk.plan(box, renamed) == {"unchanged": 1}


async def test_equal_videos_each_count_as_here(desk: Any, bucket: Bucket) -> None:
    """The second is a copy of the first within the bucket, and still its own."""
    desk.extra["output"]["local"] = "remove"
    async with desk.sandbox(clip="tiny") as box:
        await desk.run(box, [FOX], is_checked=False)
        await desk.run(box, [FOX, OWL], is_checked=False)
        assert desk.plan(box, [FOX, OWL]) == {"unchanged": 2}
