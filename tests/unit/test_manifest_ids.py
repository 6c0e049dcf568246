"""Ids that are made of the request, for jobs that have none."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from batch.errors import ManifestError, Problem
from batch.job import Job
from batch.manifest.ids import id_fault, slug
from batch.manifest.reader import load

Read = Callable[[str], tuple[Job, ...]]


@pytest.fixture
def read(tmp_path: Path) -> Read:
    """Write a manifest and return its jobs; `version: 1` is its first line."""

    def read(text: str) -> tuple[Job, ...]:
        path = tmp_path / "night.yaml"
        path.write_text(f"version: 1\n{text}", encoding="utf-8")
        return load(path).jobs

    return read


def faults(read: Read, text: str) -> list[Problem]:
    with pytest.raises(ManifestError) as caught:
        read(text)
    return caught.value.problems


def hash_of(job: Job) -> str:
    return job.fingerprint.partition(":")[2][:8]


def test_missing_id_is_made_of_the_request(read: Read) -> None:
    (job,) = read("jobs: [{prompt: 'A harbour at dawn, gulls!'}]")

    assert job.id == f"a-harbour-at-dawn-gulls-{hash_of(job)}"


def test_null_id_is_a_missing_one(read: Read) -> None:
    (job,) = read("jobs: [{id: ~, prompt: A fox}]")

    assert job.id == f"a-fox-{hash_of(job)}"


def test_made_id_does_not_depend_on_the_place(read: Read, tmp_path: Path) -> None:
    prompts = ["A harbour at dawn", "A mill by a stream", "A tram in snow"]
    (tmp_path / "rows.csv").write_text("prompt\n" + "\n".join(prompts))
    (tmp_path / "sorted.csv").write_text(
        "id,prompt\n" + "\n".join(f',"{prompt}"' for prompt in reversed(["A kite", *prompts]))
    )
    (tmp_path / "rows.txt").write_text("\n".join(prompts))
    (tmp_path / "rows.jsonl").write_text(
        "\n".join(json.dumps({"id": None, "prompt": prompt}) for prompt in prompts)
    )
    ids = {job.id for job in read("jobs: [{from: rows.csv}]")}

    assert len(ids) == 3
    assert ids < {job.id for job in read("jobs: [{from: sorted.csv}]")}
    assert ids == {job.id for job in read("jobs: [{from: rows.txt}]")}
    assert ids == {job.id for job in read("jobs: [{from: rows.jsonl}]")}
    assert ids == {job.id for job in read(f"jobs: {json.dumps([{'prompt': p} for p in prompts])}")}


def test_made_id_depends_on_every_option(read: Read) -> None:
    jobs = read(
        "jobs: [{prompt: A fox}, {prompt: A fox, mode: pro}, {prompt: A fox, duration: 10}]"
    )

    assert len({job.id for job in jobs}) == 3
    assert all(job.id == f"a-fox-{hash_of(job)}" for job in jobs)


def test_variants_add_their_number_to_a_made_id(read: Read) -> None:
    (single,) = read("jobs: [{prompt: A fox}]")

    assert [job.id for job in read("jobs: [{prompt: A fox, count: 3}]")] == [
        f"{single.id}-1",
        f"{single.id}-2",
        f"{single.id}-3",
    ]


def test_combinations_have_made_ids_of_their_own(read: Read) -> None:
    text = "{prompt: 'A {animal} at {time}', matrix: {animal: [fox, deer], time: [dawn, dusk]}"
    plain = read(f"jobs: [{text}}}]")
    counted = read(f"jobs: [{text}, count: 2}}]")

    assert [job.id for job in plain] == [
        f"a-{name}-{hash_of(job)}"
        for name, job in zip(
            ["fox-at-dawn", "fox-at-dusk", "deer-at-dawn", "deer-at-dusk"], plain, strict=True
        )
    ]
    assert [job.id for job in counted] == [f"{job.id}-{n}" for job in plain for n in (1, 2)]


def test_multi_shot_request_has_a_made_id(read: Read) -> None:
    (job,) = read("jobs: [{model: kling-v3, extra: {multi_shot: true}}]")

    assert job.id == f"video-{hash_of(job)}"


def test_same_request_twice_without_ids_is_a_fault(read: Read, tmp_path: Path) -> None:
    (tmp_path / "rows.csv").write_text("prompt,duration\nA fox,\nA deer,\nA fox,5\n")
    (problem,) = faults(read, "jobs: [{from: rows.csv}]")

    assert (Path(problem.file).name, problem.line) == ("rows.csv", 4)
    assert f"the job in {tmp_path}/rows.csv:2 asks for the same" in problem.message
    assert "count: 2" in (problem.advice or "")


def test_same_request_in_two_files_is_a_fault(read: Read, tmp_path: Path) -> None:
    (tmp_path / "rows.txt").write_text("A deer\nA fox\n")
    (problem,) = faults(read, "jobs:\n  - prompt: A fox\n  - from: rows.txt\n")

    assert (Path(problem.file).name, problem.line) == ("rows.txt", 2)
    assert f"{tmp_path}/night.yaml:3" in problem.message


@pytest.mark.parametrize("more", ["count: 2", "sound: off", "cfg_scale: 0.5", "duration: 5"])
def test_same_request_spelled_otherwise_is_a_fault(read: Read, more: str) -> None:
    (problem,) = faults(
        read,
        f"jobs:\n  - {{prompt: A fox, model: kling-v1}}\n  - {{prompt: A fox, model: kling-v1, {more}}}\n",
    )

    assert "asks for the same" in problem.message


def test_unused_axis_without_an_id_is_a_fault(read: Read) -> None:
    (problem,) = faults(read, "jobs: [{prompt: A fox, matrix: {time: [dawn, dusk]}}]")

    assert "two jobs of this entry ask for the same" in problem.message
    assert "every axis of the matrix" in (problem.advice or "")
    assert "name a file of rows once" in (problem.advice or "")


def test_same_request_beside_an_id_is_no_fault(read: Read) -> None:
    first, second, third = read(
        "jobs: [{id: fox, prompt: A fox}, {prompt: A fox}, {id: b, prompt: A fox}]"
    )

    assert (first.id, third.id) == ("fox", "b")
    assert second.id == f"a-fox-{hash_of(second)}"
    assert first.fingerprint == second.fingerprint == third.fingerprint


def test_made_id_that_is_taken_is_a_fault(read: Read) -> None:
    (job,) = read("jobs: [{prompt: A fox}]")
    (problem,) = faults(read, f"jobs: [{{id: {job.id}, prompt: A deer}}, {{prompt: A fox}}]")

    assert problem.message == f"the id '{job.id}' is taken by the job in line 2"


def test_warning_of_many_jobs_without_ids_is_reported_once(tmp_path: Path) -> None:
    (tmp_path / "rows.txt").write_text("\n".join(f"Fox {n}" for n in range(30)))
    path = tmp_path / "night.yaml"
    path.write_text("version: 1\njobs: [{from: rows.txt, model: kling-v1-6}]")
    (warning,) = load(path).warnings

    assert warning.message.endswith("[and 29 more of the same]")


@pytest.mark.parametrize(
    ("prompt", "expected"),
    [
        ("  A fox -- running... ", "a-fox-running"),
        ("Ein Müller, ein Fluß; Größe 5½", "ein-muller-ein-fluss-grosse-512"),
        ("Łódź & smørrebrød à l'Œuvre", "lodz-smorrebrod-a-l-oeuvre"),
        ("e\u0301te\u0301", "ete"),
        ("黄昏的海滩，海鸥", "黄昏的海滩-海鸥"),
        ("ثعلب يركض", "ثعلب-يركض"),
        ("हिन्दी में लोमड़ी", "हिन्दी-में-लोमड़ी"),
        ("Лиса бежит", "лиса-бежит"),
        ("カ\u3099ラスの街", "ガラスの街"),
        ("🦊 1️⃣ run\u200bs", "1-run-s"),
        ("🦊🦊", "video"),
        ("", "video"),
        ("../../etc/passwd", "etc-passwd"),
        ("NUL", "nul"),
        ("two_words\nand a line", "two-words-and-a-line"),
        (
            "A very long prompt about a fox that runs through the grass",
            "a-very-long-prompt-about-a-fox-that-runs",
        ),
        ("x" * 100, "x" * 40),
    ],
)
def test_slug_keeps_the_first_words(prompt: str, expected: str) -> None:
    assert slug(prompt) == expected


@given(st.text(max_size=300))
def test_made_id_of_any_prompt_is_valid(prompt: str) -> None:
    made = f"{slug(prompt)}-0123abcd-1000000"

    assert id_fault(made) is None
    assert id_fault(f"{made}.kb-0123456789abcdef0123456789abcdef.mp4") in {
        None,
        "a part of more than 200 bytes",
    }
    assert len(made.encode()) <= 200
