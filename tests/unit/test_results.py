"""results.jsonl: it holds each row of the state once and whole, whatever was missing or torn."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from scripted import SAID, attempt, landed, opened

from batch.attempt import (
    AttemptState,
    Doubt,
    Failed,
    Generated,
    PaidTask,
    Phase,
    TimedOut,
    Unconfirmed,
)
from batch.errors import StateError
from batch.job import Failure, FailureKind
from batch.output.results import FORGOT_AT, ResultsFile
from batch.output.row import make_row, to_line
from batch.output.sqlite import Database
from batch.output.state import AddRow, BeginRun, EndRun, Put


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
    results.repair(database)
    assert (tmp_path / "results.jsonl").read_text().splitlines() == lines
    assert results.repair(database) == 0


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
    assert ResultsFile(path).repair(database) == len(lines) - len(present)
    mended = path.read_text().splitlines()
    assert set(mended) == set(lines)
    assert mended[: len(present)] == present
    assert {line[12]: line for line in mended} == {line[12]: line for line in lines}


def test_results_of_right_size_are_not_read(tmp_path: Path, database: Database) -> None:
    """The size is enough: a library of 100,000 rows is not read every night."""
    line = row(5)
    database.write([AddRow(line)])
    (tmp_path / "results.jsonl").write_bytes(b"\xff" * (len(line.encode()) + 1))
    assert ResultsFile(tmp_path / "results.jsonl").repair(database) == 0


def test_unusable_results_file_is_reported(tmp_path: Path, database: Database) -> None:
    """No traceback: the name, the reason, and that nothing is lost."""
    path = tmp_path / "results.jsonl"
    path.mkdir()
    database.write([AddRow(row(1))])
    with pytest.raises(StateError, match=r"results\.jsonl cannot be used .*nothing is lost"):
        ResultsFile(path).repair(database)
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


def told(state: AttemptState, name: str, job_id: str = "a") -> str:
    """Return the row of an attempt that has ended so."""
    ended = attempt(state, name=name, job_id=job_id)
    return to_line(make_row(ended, run_id="r", tasks=1, now=9.0))


ENDS = {
    "landed": landed("8", "videos/a.mp4", 9),
    "failed": Failed(SAID, 3.0, PaidTask("8", 1.0)),
    "refused": Failed(SAID, 3.0),
    "timed out": TimedOut(PaidTask("8", 1.0), 3.0),
    "unconfirmed": Unconfirmed(3.0, Doubt(SAID)),
    "not downloaded": Generated(
        PaidTask("8", 1.0), 2.0, Failure(FailureKind.DOWNLOAD, "the body ended early")
    ),
}


@pytest.mark.parametrize("end", ENDS)
def test_older_state_recalls_what_rows_report(tmp_path: Path, database: Database, end: str) -> None:
    """A restored backup knows what the rows behind it know, and the file stays as it is."""
    results, path = ResultsFile(tmp_path / "results.jsonl"), tmp_path / "results.jsonl"
    database.write([Put(attempt(opened("7"), name="kb-7")), AddRow(paid(0))])
    before = f"{paid(0)}\n{told(ENDS[end], 'kb-8', 'b')}\n"
    path.write_text(before)
    results.recall(results.unknown(database), database, 5.0)
    assert results.repair(database) == 0
    assert path.read_text() == before
    assert database.fact(FORGOT_AT) == "5.0"
    recalled = database.attempt("kb-8")
    assert (recalled.phase, recalled.task) == (attempt(ENDS[end]).phase, attempt(ENDS[end]).task)
    assert (recalled.request, recalled.fingerprint) == (attempt().request, attempt().fingerprint)
    assert told(recalled.state, "kb-8", "b") == before.splitlines()[1]
    assert results.unknown(database) == []


def test_recalled_attempts_follow_those_of_the_state(tmp_path: Path, database: Database) -> None:
    results, path = ResultsFile(tmp_path / "results.jsonl"), tmp_path / "results.jsonl"
    database.write([Put(attempt(ENDS["refused"], name="kb-1"))])
    rows = [told(ENDS["timed out"], "kb-2"), told(ENDS["landed"], "kb-2")]
    rows.append(told(landed("9", "videos/a.mp4", 9), "kb-3"))
    path.write_text("".join(f"{line}\n" for line in rows))
    results.recall(results.unknown(database), database, 5.0)
    known = database.known()["a"]
    assert [(item.number, item.phase) for item in known] == [
        (1, Phase.FAILED),
        (2, Phase.LANDED),
        (3, Phase.LANDED),
    ]


def test_row_of_an_older_release_is_recalled_under_its_job(
    tmp_path: Path, database: Database
) -> None:
    """Its fingerprint is of version 1; unknown to the plan, the job would be paid for again."""
    results, path = ResultsFile(tmp_path / "results.jsonl"), tmp_path / "results.jsonl"
    line = json.loads(told(ENDS["landed"], "kb-1"))
    digest = hashlib.sha256(f"\n{attempt().request}".encode()).hexdigest()[:32]
    path.write_text(json.dumps({**line, "fingerprint": f"v1:{digest}"}) + "\n")
    results.recall(results.unknown(database), database, 5.0)
    assert database.attempt("kb-1").fingerprint == attempt().fingerprint


def test_older_state_of_a_known_attempt_is_told(tmp_path: Path, database: Database) -> None:
    """The attempt is polled again; that the state is old shows in the row that it lacks."""
    results, path = ResultsFile(tmp_path / "results.jsonl"), tmp_path / "results.jsonl"
    database.write([Put(attempt(opened("8")))])
    path.write_text(told(ENDS["landed"], "kb-1") + "\n")
    results.recall(results.unknown(database), database, 5.0)
    assert database.attempt("kb-1").phase is Phase.OPEN
    assert database.fact(FORGOT_AT) == "5.0"
    assert results.unknown(database) == []


@pytest.mark.parametrize("line", [paid(2), told(ENDS["timed out"], "kb-3")])
def test_rows_that_cannot_be_recalled_stop_run(
    tmp_path: Path, database: Database, line: str
) -> None:
    """The job has an unfinished attempt, or the row leaves out too much; nothing is changed."""
    results, path = ResultsFile(tmp_path / "results.jsonl"), tmp_path / "results.jsonl"
    database.write([Put(attempt(opened("7")))])
    path.write_text(f"{line}\n")
    with pytest.raises(StateError, match="paid task 80?2?, which .* older than the results"):
        results.recall(results.unknown(database), database, 5.0)
    assert path.read_text() == f"{line}\n"
    assert [item.external_task_id for item in database.attempts()] == ["kb-1"]


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
    assert ResultsFile(path).unknown(database) == []
    assert ResultsFile(path).repair(database) == 0
    assert path.read_text() == f"{paid(0)}\n{line}\n"


@pytest.mark.parametrize(
    ("was", "is_now"),
    [
        ('"run_id":"r"', '"run_id":"q"'),  # as long as before: only its time tells
        ('"run_id":"r"', '"run_id":"changed"'),
        ('"task_id":"8"', '"task_id":"9"'),
        ('"external_task_id":"kb-8"', '"external_task_id":"kb-9"'),
        ('"polls":0', '"polls":x'),
        ('"', "'"),
    ],
)
def test_changed_row_is_mended_and_not_believed(
    tmp_path: Path, database: Database, was: str, is_now: str
) -> None:
    """It stays, as a file that is only appended to has it; what it was follows."""
    lines = [told(ENDS["landed"], "kb-8"), told(ENDS["refused"], "kb-7", "b")]
    puts = [Put(attempt(ENDS["landed"], name="kb-8"))]
    database.write([BeginRun("r", 1.0), *puts, *map(AddRow, lines), EndRun("r", 2.0, 0)])
    path = tmp_path / "results.jsonl"
    changed = lines[0].replace(was, is_now)
    assert changed != lines[0]
    path.write_text(f"{changed}\n{lines[1]}\n")
    results = ResultsFile(path)
    assert results.unknown(database) == []
    assert results.repair(database) == 1
    assert path.read_text().splitlines() == [changed, lines[1], lines[0]]
    assert results.unknown(database) == []
    assert results.repair(database) == 0


def test_file_that_is_as_the_last_run_left_it_is_not_read(
    tmp_path: Path, database: Database
) -> None:
    line, path = row(5), tmp_path / "results.jsonl"
    path.write_bytes(b"\xff" * (len(line.encode()) + 1))
    written_at = path.stat().st_mtime
    database.write([BeginRun("r", 1.0), AddRow(line), EndRun("r", written_at, 0)])
    assert ResultsFile(path).unknown(database) == []
    assert ResultsFile(path).repair(database) == 0


@pytest.mark.parametrize("mark", ["", "\ufeff"])
@pytest.mark.parametrize("end", ["\r\n", "\r\r\n"])
def test_rows_whose_line_ends_an_editor_changed_are_the_same(
    tmp_path: Path, database: Database, end: str, mark: str
) -> None:
    """It may put a mark of its encoding before them, too; what comes later ends as always."""
    lines = [paid(number) for number in range(3)]
    database.write([AddRow(line) for line in lines])
    path = tmp_path / "results.jsonl"
    edited = mark + "".join(f"{line}{end}" for line in lines[:2])
    path.write_bytes(edited.encode())
    results = ResultsFile(path)
    assert results.unknown(database) == []
    assert results.repair(database) == 1
    assert results.repair(database) == 0
    assert path.read_bytes().decode() == f"{edited}{lines[2]}\n"


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
    ResultsFile(path).repair(database)
    assert path.read_bytes() == whole


def test_pipe_is_not_waited_for(tmp_path: Path, database: Database) -> None:
    """Nobody writes into it, so a run, and a plan, would hang."""
    path = tmp_path / "results.jsonl"
    os.mkfifo(path)
    for do in (ResultsFile(path).unknown, ResultsFile(path).repair):
        with pytest.raises(StateError, match="not a regular file"):
            do(database)
