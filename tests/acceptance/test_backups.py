"""Backups and copies of a library: what the state has forgotten is never paid for again."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

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
    assert mine.videos() == names(AFTER)
    assert {row["status"] for row in mine.rows().values()} == {"succeeded"}
    assert (said.json["tasks_created"], said.json["cost_usd"]) == (0, 0.0)
    assert said.json["adopted"] == AFTER - BEFORE


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
