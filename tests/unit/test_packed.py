"""Long lists take little memory, and are what they were."""

from __future__ import annotations

import json
import tracemalloc
from pathlib import Path

import pytest

import batch.job
import batch.manifest.ids
import batch.manifest.text_files
from batch.attempt import Phase
from batch.errors import ManifestError
from batch.job import Job, Jobs
from batch.manifest.reader import load
from batch.packed import BLOCK, Packed
from batch.plan import Action, Decision, Decisions, Known, Policy, make_plan

FEW = 100
MANY = FEW + 2 * BLOCK + 500
SMALL = 150  # bytes of memory for a job
HEAD = "version: 1\nname: many\njobs:\n- from: rows.jsonl\n"


@pytest.fixture(autouse=True)
def _few_are_kept_as_they_are(monkeypatch: pytest.MonkeyPatch) -> None:
    for module in (batch.job, batch.manifest.ids):
        monkeypatch.setattr(module, "PLAIN", FEW)


def some_jobs(number: int) -> list[Job]:
    return [
        Job(f"j{n}", f'{{"prompt":"Scene {n}"}}', f"v2:{n:032x}", ("a", "b"), n % 3 or None, "f", n)
        for n in range(number)
    ]


def manifest(folder: Path, rows: list[str]) -> Path:
    (folder / "rows.jsonl").write_text("\n".join(rows), "utf-8")
    path = folder / "many.yaml"
    path.write_text(HEAD, "utf-8")
    return path


def rows_of(number: int, **more: str) -> list[str]:
    return [
        json.dumps({"id": f"s{n}", "prompt": f"Scene {n} of a river"} | more) for n in range(number)
    ]


@pytest.mark.parametrize("number", [0, 1, BLOCK - 1, BLOCK, BLOCK + 1, MANY])
def test_packed_items_are_as_they_were(number: int) -> None:
    packed, items = Packed(), [(f"x{n}", n, None, ("é", 1.5)) for n in range(number)]
    for item in items:
        packed.append(item)
    assert len(packed) == number
    assert list(packed) == items
    assert [packed[place] for place in range(number)] == items


def test_jobs_are_a_sequence_like_others() -> None:
    kept = some_jobs(MANY)
    jobs = Jobs(kept)
    assert jobs == kept
    assert jobs[-1] == kept[-1]
    for end in (FEW, FEW + BLOCK):
        assert jobs[end - 2 : end + 2] == kept[end - 2 : end + 2]
    assert list(reversed(jobs)) == kept[::-1]
    with pytest.raises(IndexError):
        jobs[MANY]


def test_plan_of_new_jobs_needs_little_memory(tmp_path: Path) -> None:
    """Of each job a hash of its id, and itself in a block, are kept: no objects."""
    number = 10 * BLOCK
    path = manifest(tmp_path, rows_of(number))
    load(path)  # what is imported and cached at first
    tracemalloc.start()
    try:
        plan = make_plan(
            load(path).jobs,
            {},
            policy=Policy(),
            is_present=lambda _item: False,
            price=lambda _job: (0.5, True),
        )
        used, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert plan.counts[Action.NEW] == len(plan.decisions) == number
    assert plan.cost_usd == number / 2
    assert used < SMALL * number


def known(job: Job) -> Known:
    state = ("t", None, f"videos/{job.id}.mp4", 9, 0.5, 1.0)
    return Known(f"kb-{job.id}", job.id, 1, job.fingerprint, Phase.OPEN, *state)


def test_decisions_are_in_the_manifests_order() -> None:
    """Jobs with and without attempts, in turns of many lengths."""
    jobs = some_jobs(MANY)
    begun = {job.id: [known(job)] for n, job in enumerate(jobs) if n % 7 == 0 or 900 < n < 1_100}
    plan = make_plan(
        Jobs(jobs),
        begun,
        policy=Policy(),
        is_present=lambda _item: False,
        price=lambda job: (float(job.line % 5), job.line % 2 == 0),
    )
    decisions = list(plan.decisions)
    assert [item.job for item in decisions] == jobs
    assert [item.job_id for item in decisions if item.action is Action.RESUME] == list(begun)
    assert [plan.decisions[place] for place in range(MANY)] == decisions
    assert plan.cost_usd == sum(item.cost_usd or 0.0 for item in decisions)
    assert plan.has_unknown_price
    kept = [(place, item) for place, item in enumerate(decisions) if item.action is Action.RESUME]
    assert list(plan.decisions.kept()) == kept
    fresh = [(p, item.action) for p, item in enumerate(decisions) if item.action is Action.NEW]
    assert list(plan.decisions.fresh()) == fresh


def test_decisions_can_be_given() -> None:
    given = [Decision(Action.RETRY, "a", "", cost_usd=0.5), Decision(Action.FETCH, "b", "")]
    decisions = Decisions(given)
    assert decisions == given
    assert list(decisions.fresh()) == [(0, Action.RETRY)]
    assert (decisions.cost_usd, decisions.priced) == (0.5, 1)


def faults(path: Path) -> list[str]:
    with pytest.raises(ManifestError) as caught:
        load(path)
    return [str(problem).removeprefix(f"{path.parent}/") for problem in caught.value.problems]


def test_duplicate_ids_name_the_first(tmp_path: Path) -> None:
    rows = rows_of(MANY)
    again = [rows[3], rows[BLOCK + 5].replace('"s', '"S'), rows[MANY - 1], rows[3]]
    found = faults(manifest(tmp_path, [*rows, *again]))
    first = [4, BLOCK + 6, MANY, 4]
    assert len(found) == len(again)
    for number, (line, fault) in enumerate(zip(first, found, strict=True)):
        assert fault.startswith(f"rows.jsonl:{MANY + 1 + number}:")
        assert f" in line {line}" in fault


def test_same_requests_without_ids_name_the_first(tmp_path: Path) -> None:
    rows = [json.dumps({"prompt": f"Scene {n} of a river"}) for n in range(MANY)]
    (fault,) = faults(manifest(tmp_path, [*rows, rows[BLOCK]]))
    assert f"rows.jsonl:{MANY + 1}:" in fault
    assert f"rows.jsonl:{BLOCK + 1} asks for the same, and neither has an id" in fault


def test_duplicates_above_a_syntax_error_are_told(tmp_path: Path) -> None:
    path = manifest(tmp_path, [*rows_of(MANY), rows_of(MANY)[-1]])
    path.write_text(f"{HEAD}defaults: {{mode: std}}\nlimits: [", "utf-8")
    end, twice = faults(path)
    assert end.startswith("many.yaml:7:")
    assert f"rows.jsonl:{MANY + 1}:" in twice
    assert f" in line {MANY}" in twice


def test_folder_in_place_of_a_video_is_found(tmp_path: Path) -> None:
    below = json.dumps({"id": f"s{MANY - 1}.mp4/x", "prompt": "A river"})
    (fault,) = faults(manifest(tmp_path, [*rows_of(MANY), below]))
    assert f"'s{MANY - 1}.mp4/x' needs a folder where 's{MANY - 1}' has its file" in fault


def test_ids_with_one_hash_are_two(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("batch.manifest.ids._code", lambda _text: 7)
    monkeypatch.setattr("batch.manifest.ids.PLAIN", 1)
    rows = rows_of(5)
    assert len(load(manifest(tmp_path, rows)).jobs) == 5
    (fault,) = faults(manifest(tmp_path, [*rows, rows[2]]))
    assert " in line 3" in fault


def test_rows_are_read_in_pieces(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever the pieces are, each row and each fault has its line."""
    monkeypatch.setattr(batch.manifest.text_files, "_PIECE_BYTES", 100)
    rows = [row.replace("river", "rivière") for row in rows_of(200)]
    jobs = load(manifest(tmp_path, ["\ufeff" + rows[0], *rows[1:]])).jobs
    assert [(job.id, job.line) for job in jobs] == [(f"s{n}", n + 1) for n in range(200)]

    rows[60] = rows[60].replace('"prompt"', '"promt"')
    rows[150] = rows[150].replace("Scene", "Sc\x7fne")
    typing, control = faults(manifest(tmp_path, rows))
    assert typing.startswith("rows.jsonl:61:1:")
    assert control.startswith(f"rows.jsonl:151:{rows[150].index(chr(127)) + 1}:")
    assert "control character" in control


def test_rows_may_be_more_than_a_manifest(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(batch.manifest.text_files, "_PIECE_BYTES", 500)
    monkeypatch.setattr(batch.manifest.text_files, "MAX_BYTES", 2_000)
    monkeypatch.setattr(batch.manifest.text_files, "MAX_ROWS_BYTES", 8_000)
    assert len(load(manifest(tmp_path, rows_of(100))).jobs) == 100
    (fault,) = faults(manifest(tmp_path, rows_of(300)))
    assert "it is larger than" in fault
