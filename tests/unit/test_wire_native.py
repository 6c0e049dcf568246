"""Kling's own shape has a reader of its own, for speed; it must never say anything of its own."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from batch.provider import shapes
from batch.provider.fields import parse

DATA = Path(__file__).parents[1] / "data" / "wire"
NATIVE = {"created.json", "created-success-word.json", "processing.json", "succeed.json"}

ODD: tuple[Any, ...] = (
    *(None, True, False, 0, 0.0, 1, -1, 8.2e17, 10**18, "", " ", "x", "0", [], {}, [{}], ["x"]),
    *("SUCCEED", "processing", "failed", "sk-abcdefgh", "(request id: r-9)", "1303", 1303),
    *('{"code":1303}', {"code": 1303, "message": "no"}, {"url": "https://h/x.mp4?s=1"}),
    *({"videos": []}, {"videos": [{}, {"url": "https://h/3.mp4"}]}, {"videos": ["x"]}),
    *({"videos": [{"url": "ftp://h/x", "duration": True}]}, {"videos": [[]]}),
    *({"videos": {"url": "https://h/4.mp4"}}, '{"external_task_id":"kb-2"}', float("nan")),
)
VIDEO = {"id": "9", "url": "https://h.example/x.mp4?ksSecret=a", "duration": "5.1"}
TASKS = st.fixed_dictionaries(
    {
        "task_id": st.sampled_from(["822953089408827433", "kb-1", 822953089408827433]),
        "task_status": st.sampled_from(["submitted", "processing", "succeed", "failed", "SUCCESS"]),
    },
    optional={
        "task_status_msg": st.just(""),
        "task_info": st.sampled_from([{}, {"external_task_id": "kb-1"}]),
        "task_result": st.sampled_from([{}, {"videos": [VIDEO]}]),
        "created_at": st.sampled_from([1764235825029, 1764235825]),
        "updated_at": st.sampled_from([1764236054436, "1764236054436"]),
    },
)
ENVELOPES = st.fixed_dictionaries(
    {"code": st.just(0), "message": st.sampled_from(["SUCCEED", "success"])},
    optional={"request_id": st.just("r-1")},
)
# A key that has no business there, or an odd value where another was expected.
KEYS = (
    *("code", "message", "msg", "detail", "error", "request_id", "data", "id", "status"),
    *("task_id", "task_status", "task_status_msg", "fail_reason", "task_info", "task_result"),
    *("created_at", "updated_at", "create_time", "submit_time", "update_time", "url", "duration"),
    *("outputs", "result_url", "external_task_id", "final_unit_deduction", "watermark_info"),
)
CHANGES = st.just({}) | st.dictionaries(st.sampled_from(KEYS), st.sampled_from(ODD), max_size=2)
HEADERS = st.dictionaries(
    st.sampled_from(["X-Request-Id", "x-oneapi-request-id", "Content-Type"]),
    st.sampled_from(["h-1", "", "a b"]),
    max_size=2,
)


def as_received(value: Any) -> dict[str, Any]:
    read: dict[str, Any] = parse(json.dumps(value))
    return read


@settings(max_examples=1_000, deadline=None)
@given(ENVELOPES, TASKS, CHANGES, CHANGES, HEADERS)
def test_the_fast_reader_says_what_the_general_one_says_or_nothing(
    envelope: dict[str, Any],
    task: dict[str, Any],
    around: dict[str, Any],
    inside: dict[str, Any],
    headers: dict[str, str],
) -> None:
    """Whatever is odd in an answer that is nearly Kling's own."""
    root = as_received({**envelope, "data": {**task, **inside}, **around})
    fast = shapes._read_native(root, headers)
    assert fast is None or fast == shapes._read_any(root, headers)


@pytest.mark.parametrize("key", KEYS)
@pytest.mark.parametrize("name", sorted(NATIVE))
def test_one_odd_thing_in_a_documented_answer_is_never_read_otherwise(name: str, key: str) -> None:
    """Each odd value under each key: in the envelope, in the task, in the video."""
    for odd in ODD:
        for place in range(3):
            root = parse((DATA / name).read_text())
            videos = root["data"].get("task_result", {}).get("videos", [{}])
            (root, root["data"], videos[0])[place][key] = odd
            root = as_received(root)
            fast = shapes._read_native(root, {})
            assert fast is None or fast == shapes._read_any(root, {}), root


@pytest.mark.parametrize("path", sorted(DATA.glob("*.json")), ids=lambda path: path.name)
def test_the_documented_answers_are_read_fast(path: Path) -> None:
    """A rule that lets nothing pass would be right, and useless."""
    root = parse(path.read_text())
    fast = shapes._read_native(root, {})
    assert (fast is not None) == (path.name in NATIVE)
    assert fast is None or fast == shapes._read_any(root, {})
