"""results.jsonl: it holds each row of the state once and whole, whatever was missing or torn."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from scripted import attempt, opened

from batch.errors import StateError
from batch.output.results import ResultsFile
from batch.output.sqlite import Database
from batch.output.state import AddRow, BeginRun, Put


@pytest.fixture
def database(tmp_path: Path) -> Iterator[Database]:
    with Database.open(tmp_path / "state.db") as opened_database:
        yield opened_database


def row(number: int) -> str:
    return json.dumps({"job_id": f"j{number}", "note": "ü" * number})


@pytest.mark.parametrize("torn", range(0, 60, 7))
def test_torn_results_are_repaired_from_state(
    tmp_path: Path, database: Database, torn: int
) -> None:
    """Whatever is missing at the end, half a line included, is there again."""
    results = ResultsFile(tmp_path / "results.jsonl")
    lines = [row(number) for number in range(3)]
    database.write([AddRow(line) for line in lines])
    results.append(lines)
    data = (tmp_path / "results.jsonl").read_bytes()
    (tmp_path / "results.jsonl").write_bytes(data[: len(data) - torn])
    results.mend(database)
    assert (tmp_path / "results.jsonl").read_text().splitlines() == lines
    assert results.mend(database) == 0


@pytest.mark.parametrize("kept", range(2**5 - 1))
def test_repaired_results_end_with_newest_lines(
    tmp_path: Path, database: Database, kept: int
) -> None:
    """Any of the lines may be gone; an older one that is appended again does not become the state."""
    lines = [json.dumps({"job_id": job, "at": at}) for at, job in enumerate("cabab")]
    database.write([AddRow(line) for line in lines])
    path = tmp_path / "results.jsonl"
    present = [line for at, line in enumerate(lines) if kept >> at & 1]
    path.write_text("".join(f"{line}\n" for line in present))
    assert ResultsFile(path).mend(database) == len(lines) - len(present)
    mended = path.read_text().splitlines()
    assert set(mended) == set(lines)
    assert mended[: len(present)] == present
    assert {line[12]: line for line in mended} == {line[12]: line for line in lines}


def test_results_of_right_size_are_not_read(tmp_path: Path, database: Database) -> None:
    """The size is enough: a library of 100,000 rows is not read every night."""
    line = row(5)
    database.write([AddRow(line)])
    (tmp_path / "results.jsonl").write_bytes(b"\xff" * (len(line.encode()) + 1))
    assert ResultsFile(tmp_path / "results.jsonl").mend(database) == 0


def test_unusable_results_file_is_reported(tmp_path: Path, database: Database) -> None:
    """No traceback: the name, the reason, and that nothing is lost."""
    path = tmp_path / "results.jsonl"
    path.mkdir()
    database.write([AddRow(row(1))])
    with pytest.raises(StateError, match=r"results\.jsonl cannot be used .*nothing is lost"):
        ResultsFile(path).mend(database)
    with pytest.raises(StateError, match=r"results\.jsonl cannot be used .*nothing is lost"):
        ResultsFile(path).append([row(1)])


def test_torn_line_is_never_appended_to(tmp_path: Path) -> None:
    """After an append that failed in the middle, only a repaired file is appended to."""
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


def test_results_newer_than_state_stop_run(tmp_path: Path, database: Database) -> None:
    """After the restore of an older state, a run would pay again for tasks that it lacks."""
    results, path = ResultsFile(tmp_path / "results.jsonl"), tmp_path / "results.jsonl"
    for number in range(2):
        database.write(
            [
                Put(attempt(opened(f"80{number}"), name=f"kb-{number}", job_id=f"j{number}")),
                AddRow(paid(number)),
            ]
        )
    path.write_text("".join(f"{paid(number)}\n" for number in range(3)))
    before = path.read_bytes()
    for work in (results.check, results.mend):
        with pytest.raises(StateError, match="paid task 802"):
            work(database)
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
def test_strange_line_without_forgotten_task_stays(
    tmp_path: Path, database: Database, line: str
) -> None:
    database.write([Put(attempt(opened("800"), name="kb-0")), AddRow(paid(0))])
    path = tmp_path / "results.jsonl"
    path.write_text(f"{paid(0)}\n{line}\n")
    ResultsFile(path).check(database)
    assert ResultsFile(path).mend(database) == 0
    assert path.read_text() == f"{paid(0)}\n{line}\n"


@pytest.mark.parametrize("zeros_from", [1, 30, 90, 150])
def test_zeros_of_a_power_cut_are_repaired(
    tmp_path: Path, database: Database, zeros_from: int
) -> None:
    """The size is right, but unflushed bytes are zeros; only the machine's death does that."""
    lines = [paid(number) for number in range(3)]
    database.write([BeginRun("r", 1.0), *(AddRow(line) for line in lines)])
    path = tmp_path / "results.jsonl"
    whole = "".join(f"{line}\n" for line in lines).encode()
    path.write_bytes(whole[:zeros_from].ljust(len(whole), b"\0"))
    ResultsFile(path).mend(database)
    assert path.read_bytes() == whole
