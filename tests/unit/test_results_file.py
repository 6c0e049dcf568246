"""results.jsonl: what the state knows is in it, once and whole, whatever was missing or torn."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from batch.output.changes import Put, Row, RunStarted
from batch.output.results_file import ResultsFile
from scripted import attempt, opened

from batch.errors import StateError
from batch.output.sqlite import Store


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    with Store.open(tmp_path / "state.db") as opened_store:
        yield opened_store


def row(number: int) -> str:
    return json.dumps({"job_id": f"j{number}", "note": "ü" * number})


@pytest.mark.parametrize("torn", range(0, 60, 7))
def test_results_are_mended_from_the_state(tmp_path: Path, store: Store, torn: int) -> None:
    """Whatever is missing at the end, half a line included, is there again."""
    results = ResultsFile(tmp_path / "results.jsonl")
    lines = [row(number) for number in range(3)]
    store.write([Row(line) for line in lines])
    results.append(lines)
    data = (tmp_path / "results.jsonl").read_bytes()
    (tmp_path / "results.jsonl").write_bytes(data[: len(data) - torn])
    results.mend(store)
    assert (tmp_path / "results.jsonl").read_text().splitlines() == lines
    assert results.mend(store) == 0


@pytest.mark.parametrize("kept", range(2**5 - 1))
def test_whatever_is_missing_the_last_line_of_a_job_is_its_newest(
    tmp_path: Path, store: Store, kept: int
) -> None:
    """Any of the lines may be gone; an older one that is appended again does not become the state."""
    lines = [json.dumps({"job_id": job, "at": at}) for at, job in enumerate("cabab")]
    store.write([Row(line) for line in lines])
    path = tmp_path / "results.jsonl"
    present = [line for at, line in enumerate(lines) if kept >> at & 1]
    path.write_text("".join(f"{line}\n" for line in present))
    assert ResultsFile(path).mend(store) == len(lines) - len(present)
    mended = path.read_text().splitlines()
    assert set(mended) == set(lines)
    assert mended[: len(present)] == present
    assert {line[12]: line for line in mended} == {line[12]: line for line in lines}


def test_results_that_are_right_are_not_read(tmp_path: Path, store: Store) -> None:
    """The size says it: a library of 100,000 rows is not read every night."""
    line = row(5)
    store.write([Row(line)])
    (tmp_path / "results.jsonl").write_bytes(b"\xff" * (len(line.encode()) + 1))
    assert ResultsFile(tmp_path / "results.jsonl").mend(store) == 0


def test_a_results_file_that_cannot_be_read_or_written_is_told(
    tmp_path: Path, store: Store
) -> None:
    """No traceback: the name, the reason, and that nothing is lost."""
    path = tmp_path / "results.jsonl"
    path.mkdir()
    store.write([Row(row(1))])
    with pytest.raises(StateError, match=r"results\.jsonl cannot be used .*nothing is lost"):
        ResultsFile(path).mend(store)
    with pytest.raises(StateError, match=r"results\.jsonl cannot be used .*nothing is lost"):
        ResultsFile(path).append([row(1)])


def test_nothing_follows_half_a_line(tmp_path: Path) -> None:
    """After an append that failed in the middle, only a mended file is appended to."""
    path = tmp_path / "results.jsonl"
    results = ResultsFile(path)
    path.mkdir()
    with pytest.raises(StateError):
        results.append([row(1)])
    path.rmdir()
    with pytest.raises(StateError, match="half a line"):
        results.append([row(2)])
    assert not path.exists()


def paid(number: int) -> str:
    ids = {"task_id": f"80{number}", "external_task_id": f"kb-{number}"}
    return json.dumps({"job_id": f"j{number}", **ids})


def test_results_that_know_more_than_the_state_stop_the_run(tmp_path: Path, store: Store) -> None:
    """A backup of the state was put back: what it has forgotten would be paid for again."""
    results, path = ResultsFile(tmp_path / "results.jsonl"), tmp_path / "results.jsonl"
    for number in range(2):
        store.write([Put(attempt(opened(f"80{number}"), name=f"kb-{number}")), Row(paid(number))])
    path.write_text("".join(f"{paid(number)}\n" for number in range(3)))
    before = path.read_bytes()
    for work in (results.check, results.mend):
        with pytest.raises(StateError, match="paid task 802"):
            work(store)
    assert path.read_bytes() == before


@pytest.mark.parametrize(
    "line",
    [
        json.dumps({"job_id": "j0", "task_id": "800", "external_task_id": "kb-0", "note": "mine"}),
        json.dumps({"job_id": "j9", "task_id": None, "external_task_id": "kb-9"}),
        "no JSON",
        "[]",
    ],
    ids=["edited", "nothing paid", "garbage", "no object"],
)
def test_a_strange_line_that_tells_of_no_forgotten_task_is_left_alone(
    tmp_path: Path, store: Store, line: str
) -> None:
    store.write([Put(attempt(opened("800"), name="kb-0")), Row(paid(0))])
    path = tmp_path / "results.jsonl"
    path.write_text(f"{paid(0)}\n{line}\n")
    ResultsFile(path).check(store)
    assert ResultsFile(path).mend(store) == 0
    assert path.read_text() == f"{paid(0)}\n{line}\n"


@pytest.mark.parametrize("zeros_from", [1, 30, 90, 150])
def test_zeros_that_a_power_cut_has_left_are_mended(
    tmp_path: Path, store: Store, zeros_from: int
) -> None:
    """The size is right, but what was not flushed is not there; only the machine's death does that."""
    lines = [paid(number) for number in range(3)]
    store.write([RunStarted("r", 1.0), *(Row(line) for line in lines)])
    path = tmp_path / "results.jsonl"
    whole = "".join(f"{line}\n" for line in lines).encode()
    path.write_bytes(whole[:zeros_from].ljust(len(whole), b"\0"))
    ResultsFile(path).mend(store)
    assert path.read_bytes() == whole
