"""The journal of the sandbox, and its own two pages."""

from __future__ import annotations

from contextlib import closing
from pathlib import Path

from sandbox_desk import desk


def test_tasks_survive_death_of_server(tmp_path: Path) -> None:
    """With their ids, their times and their owner; a line torn by the kill is skipped."""
    journal = tmp_path / "deep" / "journal.jsonl"
    with closing(desk(journal=journal)) as api:
        first = api.create(external_task_id="mine", prompt="Ein Füchslein")
        finished_at = api.tasks[0].finished_at
    with journal.open("a") as file:
        file.write('{"number": 2, "task_')
    with closing(desk(journal=journal)) as api:
        duplicate, _ = api.post(external_task_id="mine")
        second = api.create()
        _, answer = api.query("mine")
        assert api.tasks[0].finished_at == finished_at
    with closing(desk(journal=journal)) as api:
        ids = [task.task_id for task in api.tasks]

    assert (duplicate, answer["data"]["task_id"]) == (400, first)
    assert ids == [first, second]
    assert first != second


def test_journal_holds_no_key(tmp_path: Path) -> None:
    """An account is known by a hash of it."""
    journal = tmp_path / "journal.jsonl"
    with closing(desk(journal=journal)) as api:
        api.post(key="sk-secret")

    assert "sk-secret" not in journal.read_text()


def test_statistics_are_served_without_key() -> None:
    """Another process can read which tasks were paid for."""
    api = desk()
    task_id = api.create(external_task_id="mine")
    api.query(task_id)
    api.moment += 5
    api.query(task_id)
    api.post(duration="9")
    status, stats = api.ask("GET", "/sandbox/stats", key=None)

    assert api.stats.closest_queries_s() == 5
    assert api.stats.queries_per_task == {task_id: 2}
    assert status == 200
    assert (stats["posts"], stats["created"], stats["refused"], stats["queries"]) == (2, 1, 1, 2)
    assert stats["post_times"] == [1_800_000_000.0, 1_800_000_005.0]
    assert stats["tasks"][0]["task_id"] == task_id
    assert stats["tasks"][0]["body"]["external_task_id"] == "mine"
    assert stats["tasks"][0]["queries"] == 2


def test_fault_plan_is_replaced_by_request() -> None:
    """An invalid plan is refused, and the old one stays."""
    api = desk()
    good = api.ask("POST", "/sandbox/faults", body={"rules": ["submit:500"]})
    bad = api.ask("POST", "/sandbox/faults", body=["submit:nonsense"])
    hit, _ = api.post()
    api.ask("POST", "/sandbox/faults", body=[])
    missed, _ = api.post()

    assert (good[0], bad[0]) == (200, 400)
    assert "nonsense" in bad[1]["error"]
    assert (hit, missed) == (500, 200)
