"""Runs without faults."""

from __future__ import annotations

import json
import re
from datetime import datetime
from typing import Any

from batch.errors import ExitCode

MIXED: list[dict[str, Any]] = [
    {"id": "beach", "prompt": "A happy scene of a vacation on the beach."},
    {
        "id": "{animal}-{light}",
        "prompt": "A {animal} walks through tall grass, {light} light",
        "negative_prompt": "text, watermark",
        "matrix": {"animal": ["fox", "deer"], "light": ["morning", "evening"]},
        "tags": ["nature"],
    },
    {
        "id": "deep/city",
        "prompt": "A city {at} night",
        "model": "kling-v3",
        "sound": "on",
        "count": 3,
    },
    {
        "id": "cam",
        "prompt": "no",
        "model": "kling-v1",
        "camera_control": {"type": "simple", "config": {"zoom": 5}},
    },
    {
        "id": "extra",
        "prompt": "Ein Käfer 🪲 “quoted”\nsecond line",
        "model_name": "kling-v3",
        "duration": 12,
        "aspect_ratio": "9:16",
        "extra": {"watermark_info": {"enabled": False}},
    },
]
IDS = {
    *("beach", "fox-morning", "fox-evening", "deer-morning", "deer-evening"),
    *("deep/city-1", "deep/city-2", "deep/city-3", "cam", "extra"),
}


async def test_mixed_manifest_is_completed(desk: Any) -> None:
    """Every job has one task, one file and one complete row."""
    async with desk.sandbox(clip="prompt") as box:
        summary = await desk.run(box, MIXED)
        assert summary.exit_code is ExitCode.OK
        assert summary.outcomes == {"succeeded": 10}
        assert box.stats.created == box.stats.posts == summary.tasks_created == 10
        by_id = {task.task_id: task for task in box.tasks}
        assert set(desk.last) == IDS
        assert len(desk.rows) == 10
        assert set(desk.videos) == {f"{job_id}.mp4" for job_id in IDS}
        for job_id, row in desk.last.items():
            task = by_id[row["task_id"]]
            clip = box.clip(task)
            assert row["file"] == f"videos/{job_id}.mp4"
            assert row["bytes"] == clip.size
            assert (desk.root / row["file"]).read_bytes() == b"".join(clip.chunks(0, clip.size))
            assert row["external_task_id"] == task.external_task_id
            sent = dict(task.body)
            assert sent.pop("external_task_id") == row["external_task_id"]
            assert sent.pop("prompt") == row["prompt"]
            assert sent == row["options"]
            assert row["attempts"] == 1
            assert row["polls"] >= 1
            assert row["cost_usd"] > 0
            assert row["warnings"] == []
            assert re.fullmatch(r"v\d+:[0-9a-f]{16,}", row["fingerprint"])
            assert row["run_id"] == summary.run_id
            for name in ("submitted_at", "generated_at", "finished_at"):
                assert row[name].endswith("Z")
                assert datetime.fromisoformat(row[name]).utcoffset() is not None


async def test_options_are_sent_as_the_api_documents(desk: Any) -> None:
    """Durations are strings, `model` is `model_name`, prompts and extras are untouched."""
    async with desk.sandbox() as box:
        await desk.run(box, MIXED)
    sent = {row["job_id"]: row["options"] for row in desk.rows}
    prompts = {row["job_id"]: row["prompt"] for row in desk.rows}
    assert sent["beach"]["duration"] == "5"
    assert sent["beach"]["model_name"] == "kling-v2-6"
    assert "model" not in sent["beach"]
    assert sent["deep/city-2"]["sound"] == "on"
    assert sent["cam"]["camera_control"]["config"]["zoom"] == 5
    assert sent["extra"]["watermark_info"] == {"enabled": False}
    assert sent["extra"]["duration"] == "12"
    assert prompts["fox-evening"] == "A fox walks through tall grass, evening light"
    assert prompts["deep/city-1"] == "A city {at} night"
    assert prompts["cam"] == "no"
    assert prompts["extra"] == "Ein Käfer 🪲 “quoted”\nsecond line"
    assert not any(
        {"tags", "count", "matrix", "id", "variant"} & set(each) for each in sent.values()
    )


async def test_variants_have_fingerprints_of_their_own(desk: Any) -> None:
    """Three variants of one prompt are three videos."""
    async with desk.sandbox() as box:
        await desk.run(box, MIXED)
    assert len({row["fingerprint"] for row in desk.rows}) == 10


async def test_a_second_run_sends_nothing(desk: Any) -> None:
    """No POST, no GET, not a byte more in results.jsonl, and exit code 0."""
    async with desk.sandbox() as box:
        await desk.run(box, MIXED)
        before, requests = desk.results(), box.stats.counts()
        summary = await desk.run(box, MIXED)
        assert summary.exit_code is ExitCode.OK
        assert summary.planned == {"unchanged": 10}
        assert desk.results() == before
        assert box.stats.counts() == requests


async def test_rate_and_slots_are_kept(desk: Any) -> None:
    """`max_in_flight` and `submit_rate` hold as the provider counts them."""
    async with desk.sandbox(median_s=0.15) as box:
        limits = {"max_in_flight": 4, "submit_rate": "25/s"}
        summary = await desk.run(box, 16, limits=limits)
        times = box.stats.post_times
        assert summary.outcomes == {"succeeded": 16}
        assert box.stats.most_in_flight <= 4
        in_a_second = [sum(start <= t < start + 1 for t in times) for start in times]
        assert max(in_a_second) <= 25
        assert times[-1] - times[0] > 15 / 25 * 0.9


async def test_task_is_polled_once_an_interval(desk: Any) -> None:
    """The first poll comes after `poll_interval`, and so do later ones."""
    async with desk.sandbox(median_s=0.5) as box:
        await desk.run(box, 8, limits={"poll_interval": "100ms"})
        created = {task.task_id: task.created_at for task in box.tasks}
        assert box.stats.closest_queries_s() >= 0.095
        first = [box.stats.query_times[task_id][0] - at for task_id, at in created.items()]
        assert min(first) >= 0.095


async def test_other_ratio_or_length_is_a_warning(desk: Any) -> None:
    """A paid video is kept all the same."""
    async with desk.sandbox("download:wrong-ratio:until=1", "download:wrong-duration") as box:
        summary = await desk.run(box, desk.jobs(2, duration=10))
        assert summary.exit_code is ExitCode.OK
        assert box.stats.created == 2
    assert all(row["warnings"] for row in desk.rows)


async def test_the_rows_are_json_lines(desk: Any) -> None:
    """One object a line, UTF-8, newline at the end."""
    async with desk.sandbox() as box:
        await desk.run(box, MIXED)
    text = desk.results()
    assert text.endswith("\n")
    assert all(isinstance(json.loads(line), dict) for line in text.split("\n")[:-1])
    assert "Käfer" in text
