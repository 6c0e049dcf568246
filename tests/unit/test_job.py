"""A job: its fingerprint and its body."""

from __future__ import annotations

from batch.job import Job, canonical_request, fingerprint


def test_the_fingerprint_covers_request_and_variant() -> None:
    """The order of keys is nothing; a variant is another video."""
    one = canonical_request({"prompt": "雨", "duration": "5"})
    assert one == canonical_request({"duration": "5", "prompt": "雨"})
    assert one == '{"duration":"5","prompt":"雨"}'
    prints = {fingerprint(one, None), fingerprint(one, 1), fingerprint(one, 2)}
    assert len(prints) == 3
    assert all(text.startswith("v1:") for text in prints)


def test_a_job_returns_a_new_body() -> None:
    """An external id that is added to one changes no other."""
    job = Job("a/b", '{"prompt":"x"}', "v1:00")
    job.body()["external_task_id"] = "kb-1"
    assert job.body() == {"prompt": "x"}
    assert job.video_path == "videos/a/b.mp4"
