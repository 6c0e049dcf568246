"""A job: its fingerprint and its body."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from batch.job import Job, canonical_request, fingerprint, upgraded_fingerprint

OLD = Path(__file__).parents[1] / "data" / "fingerprints_v1.jsonl"


def test_request_has_one_spelling() -> None:
    one = canonical_request({"prompt": "雨", "duration": "5"})
    assert one == canonical_request({"duration": "5", "prompt": "雨"})
    assert one == '{"duration":"5","prompt":"雨"}'


def test_fingerprint_covers_request_and_variant() -> None:
    """The first variant is the video that stood alone before `count` was added."""
    one, other = canonical_request({"prompt": "雨"}), canonical_request({"prompt": "雪"})
    prints = [fingerprint(one, variant) for variant in (None, 1, 2, 3)]
    assert prints[0] == prints[1]
    assert len({*prints, fingerprint(other, None)}) == 4
    assert all(text.startswith("v2:") for text in prints)


@pytest.mark.parametrize(
    "spelled_out",
    [{"sound": "off"}, {"cfg_scale": 0.5}, {"mode": "std"}, {"sound": "off", "cfg_scale": 0.5}],
)
def test_default_that_is_spelled_out_changes_nothing(spelled_out: dict[str, Any]) -> None:
    body = {"prompt": 'a "sound":"off" sign', "model_name": "kling-v3"}
    plain, spelled = canonical_request(body), canonical_request({**body, **spelled_out})
    assert fingerprint(plain, 2) == fingerprint(spelled, 2)


@pytest.mark.parametrize(
    "other", [{"sound": "on"}, {"cfg_scale": 0.6}, {"mode": "pro"}, {"x": None}]
)
def test_another_value_is_another_video(other: dict[str, Any]) -> None:
    body = {"prompt": "雨", "mode": "std"}
    plain, changed = canonical_request(body), canonical_request({**body, **other})
    assert fingerprint(plain, None) != fingerprint(changed, None)


def test_old_fingerprints_become_those_of_today() -> None:
    """200 jobs as commit c951909 has hashed them: no upgrade buys a library again."""
    lines = OLD.read_text("utf-8").splitlines()
    assert len(lines) == 200
    for line in lines:
        old, variant, request = json.loads(line)
        assert upgraded_fingerprint(old, request) == fingerprint(request, variant)


def test_hash_that_is_not_recognised_stays() -> None:
    assert upgraded_fingerprint("v1:00", "{}") == "v1:00"
    assert upgraded_fingerprint("v2:00", "{}") == "v2:00"


def test_a_job_returns_a_new_body() -> None:
    """An external id that is added to one changes no other."""
    job = Job("a/b", '{"prompt":"x"}', "v1:00")
    job.body()["external_task_id"] = "kb-1"
    assert job.body() == {"prompt": "x"}
    assert job.video_path == "videos/a/b.mp4"
