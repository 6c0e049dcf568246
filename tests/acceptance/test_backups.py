"""Backups and copies of a library: what the state has forgotten is never paid for again."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from batch.output.sqlite import Database

BEFORE, AFTER = 6, 9  # jobs at the time of the backup, and later
STATE = Path(".kling-batch/state.db")


class Library:
    """An output folder, run against one provider."""

    def __init__(self, shell: Any, provider: Any) -> None:
        self.shell, self.provider = shell, provider
        self.root = shell.folder / "outputs" / "night"
        self.backup = shell.folder / "backup"

    def run(self, jobs: int, *, name: str = "night.yaml", base_url: str | None = None) -> Any:
        """Bring the library up to date with so many jobs."""
        manifest = self.shell.manifest(jobs, name=name, base_url=base_url or self.provider.base_url)
        return self.shell("run", manifest, "--json")

    def grow(self) -> None:
        """Make the first jobs, back up the folder, make the later ones."""
        assert self.run(BEFORE).code == 0
        shutil.copytree(self.root, self.backup)
        assert self.run(AFTER).code == 0
        assert self.paid == AFTER

    def restore(self, what: str) -> None:
        """Bring the backup back: the whole folder, or the state alone."""
        if what == "folder":
            shutil.rmtree(self.root)
            shutil.copytree(self.backup, self.root)
        else:
            shutil.copy(self.backup / STATE, self.root / STATE)

    @property
    def paid(self) -> int:
        """How many tasks the provider has created."""
        return len(self.provider.tasks)

    def rows(self, root: Path | None = None) -> dict[str, dict[str, Any]]:
        """Return the last row of each job."""
        lines = ((root or self.root) / "results.jsonl").read_text("utf-8").splitlines()
        return {row["job_id"]: row for row in map(json.loads, lines)}

    def videos(self, root: Path | None = None) -> set[str]:
        """Return the names of the videos."""
        return {path.stem for path in ((root or self.root) / "videos").glob("*.mp4")}


def names(count: int) -> set[str]:
    return {f"job-{number}" for number in range(count)}


@pytest.fixture
def library(shell: Any, sandbox: Callable[..., Any]) -> Callable[..., Library]:
    """Give a function that starts a library at a provider with options."""
    return lambda **options: Library(shell, sandbox(**options))


@pytest.mark.parametrize("checks_duplicates_first", [True, False])
def test_restored_backup_pays_nothing_again(
    library: Callable[..., Library], checks_duplicates_first: bool
) -> None:
    mine = library(checks_duplicates_first=checks_duplicates_first)
    mine.grow()
    mine.restore("folder")
    said = mine.run(AFTER)
    assert (said.code, mine.paid) == (0, AFTER)
    assert str(said.json["cost_usd"]) == "0.0"
    assert mine.videos() == names(AFTER)
    assert {row["status"] for row in mine.rows().values()} == {"succeeded"}
    assert (said.json["tasks_created"], said.json["cost_usd"]) == (0, 0.0)
    assert said.json["adopted"] == AFTER - BEFORE
    assert not mine.rows()["job-8"]["paid"]


def test_restored_folder_is_noticed_where_an_id_is_taken_twice(
    library: Callable[..., Library],
) -> None:
    """State and rows are of one time; what this machine saw of the library is not."""
    mine = library(unique_external_ids=False)
    mine.grow()
    mine.restore("folder")
    assert "does not know the latest run" in mine.shell("plan", "night.yaml").err
    assert "does not know the latest run" in mine.shell("doctor", "night.yaml").out
    posts = mine.provider.stats.posts
    said = mine.run(AFTER)
    assert "does not know the latest run" in said.err
    assert (said.code, mine.paid, mine.provider.stats.posts) == (0, AFTER, posts)
    assert (said.json["adopted"], mine.videos()) == (AFTER - BEFORE, names(AFTER))
    quiet = mine.run(AFTER)
    assert (quiet.code, quiet.err) == (0, "")
    assert "does not know" not in mine.shell("doctor", "night.yaml").out


def test_restored_folder_is_told_of_once_in_a_night_without_work(
    library: Callable[..., Library],
) -> None:
    """It is suspected from then on, and told of no more."""
    mine = library(unique_external_ids=False)
    mine.grow()
    mine.restore("folder")
    assert "does not know the latest run" in mine.run(BEFORE).json["warnings"][0]
    assert mine.run(BEFORE).json["warnings"] == []
    said = mine.run(AFTER)
    assert (said.code, mine.paid, said.json["adopted"]) == (0, AFTER, AFTER - BEFORE)


def test_restored_folder_of_the_midst_of_a_run_is_noticed(library: Callable[..., Library]) -> None:
    """The backup knows that the run has begun."""
    mine = library(unique_external_ids=False, median_s=0.5)
    manifest = mine.shell.manifest(
        AFTER, base_url=mine.provider.base_url, limits={"max_in_flight": 2}
    )
    with mine.shell.running("run", manifest) as process:
        mine.shell.until(lambda: mine.paid >= 3)
        with Database.open_to_read(mine.root / STATE) as database, database.in_memory() as copy:
            copy._db.execute("VACUUM INTO ?", (str(mine.backup),))
        assert process.wait() == 0
    shutil.rmtree(mine.root)
    (mine.root / STATE).parent.mkdir(parents=True)
    mine.backup.rename(mine.root / STATE)
    said = mine.run(AFTER)
    assert "does not know the latest run" in said.err
    assert (said.code, mine.paid, mine.videos()) == (0, AFTER, names(AFTER))


def test_folder_of_before_a_killed_run_is_noticed(library: Callable[..., Library]) -> None:
    """This machine has seen it begin, and nothing has seen it end."""
    mine = library(unique_external_ids=False, median_s=0.5)
    assert mine.run(BEFORE).code == 0
    shutil.copytree(mine.root, mine.backup)
    with mine.shell.running(
        "run", mine.shell.manifest(AFTER, base_url=mine.provider.base_url)
    ) as process:
        mine.shell.until(lambda: mine.paid == AFTER)
        process.kill()
    mine.restore("folder")
    said = mine.run(AFTER)
    assert "does not know the latest run" in said.err
    assert (said.code, mine.paid, mine.videos()) == (0, AFTER, names(AFTER))


def test_another_home_notices_nothing(library: Callable[..., Library]) -> None:
    mine = library()
    mine.grow()
    mine.restore("folder")
    mine.shell.base_env["XDG_STATE_HOME"] += "-of-another"
    assert "does not know" not in mine.run(AFTER).err
    assert mine.paid == AFTER  # the provider refuses the ids


def test_restored_backup_without_look_up_is_unconfirmed(library: Callable[..., Library]) -> None:
    mine = library(lookup=False)
    mine.grow()
    mine.restore("folder")
    said = mine.run(AFTER)
    assert (said.code, mine.paid) == (1, AFTER)
    assert said.json["outcomes"] == {"unconfirmed": AFTER - BEFORE}
    assert "exists" in mine.rows()["job-8"]["error"]["message"]
    assert mine.run(AFTER).code == 1
    assert mine.paid == AFTER


@pytest.mark.parametrize("lookup", [True, False])
def test_restored_state_takes_over_what_rows_name(
    library: Callable[..., Library], lookup: bool
) -> None:
    """The rows are kept, and their tasks need no look-up; what is restored says so."""
    mine = library(lookup=lookup, unique_external_ids=False)
    mine.grow()
    before = (mine.root / "results.jsonl").read_bytes()
    mine.restore("state")
    assert mine.shell("plan", "night.yaml", "--json").json["counts"]["unchanged"] == AFTER
    said = mine.run(AFTER + 1)
    assert "3 rows that it lacked were taken over" in said.err
    assert (said.code, mine.paid) == (0, AFTER + 1)
    assert mine.videos() == names(AFTER + 1)
    assert (mine.root / "results.jsonl").read_bytes().startswith(before)
    assert mine.run(AFTER + 1).json["planned"] == {"unchanged": AFTER + 1}


@pytest.mark.parametrize("unique_external_ids", [True, False])
def test_what_neither_state_nor_rows_know_is_looked_up_first(
    library: Callable[..., Library], unique_external_ids: bool
) -> None:
    """No request goes out for it, also where the provider would take an id twice."""
    mine = library(unique_external_ids=unique_external_ids)
    mine.grow()
    mine.restore("state")
    results = mine.root / "results.jsonl"
    results.write_bytes(b"".join(results.read_bytes().splitlines(keepends=True)[:-1]))
    posts = mine.provider.stats.posts
    said = mine.run(AFTER)
    assert (said.code, mine.paid, mine.provider.stats.posts) == (0, AFTER, posts)
    assert mine.videos() == names(AFTER)


def test_state_without_its_log_pays_nothing_again(library: Callable[..., Library]) -> None:
    """A copy of the database made during the very first run, which lost all that it had logged."""
    mine = library(median_s=1.0)
    manifest = mine.shell.manifest(BEFORE, base_url=mine.provider.base_url)
    with mine.shell.running("run", manifest) as process:
        mine.shell.until(lambda: mine.paid >= 3)
        process.kill()
    shutil.copy(mine.root / STATE, mine.backup)
    shutil.rmtree(mine.root)
    (mine.root / STATE).parent.mkdir(parents=True)
    shutil.copy(mine.backup, mine.root / STATE)
    assert mine.run(BEFORE).code == 0
    assert mine.paid == BEFORE


def test_copied_libraries_share_equal_jobs(library: Callable[..., Library]) -> None:
    """The same request under the same name is paid for once, and each copy has the video."""
    mine = library()
    assert mine.run(2).code == 0
    copy = mine.root.with_name("copy")
    shutil.copytree(mine.root, copy)
    assert mine.run(4).code == 0
    assert mine.run(5, name="copy.yaml").code == 0
    assert mine.paid == 5
    assert mine.videos(copy) == names(5)
    shared = {name: row["task_id"] for name, row in mine.rows().items()}
    assert {name: mine.rows(copy)[name]["task_id"] for name in shared} == shared
