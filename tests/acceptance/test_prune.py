"""`prune`: what has left the manifest goes to versions/; what is deleted stays known, and in the books."""

from __future__ import annotations

import os
import shutil
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from batch.output import lock

ROOT = "outputs/night"
MONTH_S = 30 * 86_400.0


class Library:
    """Three jobs with a video each, fox with two former versions besides."""

    def __init__(self, shell: Any, sandbox: Any, made: Path) -> None:
        self.shell, self.root = shell, shell.folder / ROOT
        journal = shell.folder / "provider.jsonl"
        if (made / ROOT).exists():
            shutil.copytree(made, shell.folder, dirs_exist_ok=True)
        self.box = sandbox(clip="prompt", journal=journal)
        if not self.root.exists():
            for fox in ("a", "b", "c"):
                self.ask(fox=fox, deer="d", owl="o")
                assert self.run().code == 0
            shutil.copytree(shell.folder, made, dirs_exist_ok=True)
        self.ask(fox="c", deer="d", owl="o")
        self.paid = len(self.box.tasks)

    def ask(
        self,
        *,
        keep: dict[str, Any] | None = None,
        limits: dict[str, Any] | None = None,
        **jobs: str,
    ) -> None:
        """Write the manifest."""
        listed = [{"id": job_id, "prompt": prompt} for job_id, prompt in jobs.items()]
        self.manifest = self.shell.manifest(listed, output=keep, limits=limits or {})

    def run(self, *args: str) -> Any:
        """Run the manifest."""
        return self.shell("run", self.manifest, "--base-url", self.box.base_url, *args)

    def prune(self, *args: str) -> Any:
        """Prune the library."""
        return self.shell("prune", self.manifest, *args, key=None)

    def plan(self) -> dict[str, str]:
        """Return the actions of the plan that are not `unchanged`, by job."""
        jobs = self.shell("plan", self.manifest, "--json").json["jobs"]
        return {job["job_id"]: job["action"] for job in jobs}

    def outcomes(self, job_id: str) -> list[str]:
        """Return what became of a job's tasks, oldest first."""
        tasks = self.shell("ledger", ROOT, "--json").json["tasks"]
        return [task["outcome"] for task in tasks if task["job_id"] == job_id]

    def files(self) -> dict[str, bytes]:
        """Read the videos, current and former."""
        return {
            str(path.relative_to(self.root)): path.read_bytes()
            for path in sorted(self.root.rglob("*.mp4"))
        }

    def versions(self, job_id: str = "fox") -> list[str]:
        """Return the former versions of a job, oldest first; of one second, by their numbers."""
        found = [name for name in self.files() if name.startswith(f"versions/{job_id}/")]
        return sorted(found, key=lambda name: name.removesuffix(".mp4"))

    def shift(self, seconds: float) -> None:
        """Have everything be so much older."""
        with closing(sqlite3.connect(self.root / ".kling-batch/state.db")) as state, state:
            for name in ("generated_at", "landed_at", "discarded_at"):
                state.execute(
                    "UPDATE attempts SET detail = json_set(detail, ?, json_extract(detail, ?) - ?)"
                    " WHERE json_extract(detail, ?) IS NOT NULL",
                    (f"$.{name}", f"$.{name}", seconds, f"$.{name}"),
                )

    @property
    def created(self) -> int:
        """How many tasks were created since the library was made."""
        return len(self.box.tasks) - self.paid


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("made")


@pytest.fixture
def library(shell: Any, sandbox: Any, made: Path) -> Library:
    return Library(shell, sandbox, made)


# -- orphans


def test_orphan_goes_to_versions(library: Library) -> None:
    owl = library.files()["videos/owl.mp4"]
    library.ask(fox="c", deer="d")
    said = library.prune("--orphans", "--yes", "--json")
    assert said.code == 0
    assert (said.json["moved"], said.json["deleted"]) == (1, 0)
    (item,) = said.json["files"]
    assert (item["file"], item["action"]) == ("videos/owl.mp4", "move")
    assert item["bytes"] == len(owl)
    assert "videos/owl.mp4" not in library.files()
    assert [library.files()[name] for name in library.versions("owl")] == [owl]
    assert library.outcomes("owl") == ["former"]
    assert library.prune("--orphans", "--yes", "--json").json["files"] == []


def test_pruned_orphan_comes_back_unpaid(library: Library) -> None:
    owl = library.files()["videos/owl.mp4"]
    library.ask(fox="c", deer="d")
    library.prune("--orphans", "--yes")
    library.ask(fox="c", deer="d", owl="o")
    assert library.run().code == 0
    assert library.files()["videos/owl.mp4"] == owl
    assert library.created == 0


def test_deleted_orphan_stays_in_the_books(library: Library) -> None:
    library.ask(deer="d", owl="o")
    before = library.shell("ledger", ROOT, "--json").json["total"]
    said = library.prune("--orphans", "--delete", "--yes", "--json")
    assert said.json["deleted"] == 3, "its versions, too"
    assert set(library.files()) == {"videos/deer.mp4", "videos/owl.mp4"}
    assert library.outcomes("fox") == ["discarded"] * 3
    assert library.shell("ledger", ROOT, "--json").json["total"] == before
    (status,) = library.shell("status", ROOT, "--json").json
    assert status["paid_without_file"] == []
    assert library.run().code == 0
    assert library.created == 0


def test_discarded_video_is_downloaded_again_while_it_is_kept(library: Library) -> None:
    fox = library.files()["videos/fox.mp4"]
    library.ask(deer="d", owl="o")
    library.prune("--orphans", "--delete", "--yes")
    library.ask(fox="c", deer="d", owl="o")
    assert library.plan() == {"fox": "fetch"}
    assert library.run().code == 0
    assert library.files()["videos/fox.mp4"] == fox
    assert library.created == 0
    assert library.outcomes("fox")[-1] == "current"


def test_discarded_video_is_paid_for_once_it_is_too_old(library: Library) -> None:
    library.ask(deer="d", owl="o")
    library.prune("--orphans", "--delete", "--yes")
    library.shift(MONTH_S + 60)
    library.ask(fox="c", deer="d", owl="o")
    assert library.plan() == {"fox": "changed"}
    assert library.run().code == 0
    assert library.created == 1
    assert library.outcomes("fox") == ["discarded"] * 3 + ["current"]


def test_renamed_job_is_no_orphan(library: Library) -> None:
    before = library.files()
    library.ask(fox="c", deer="d", uhu="o")
    said = library.prune("--orphans", "--delete", "--yes", "--json")
    assert said.json["files"] == []
    assert library.files() == before
    assert library.plan() == {"uhu": "moved"}


def test_most_of_a_library_needs_its_number(library: Library) -> None:
    before = library.files()
    library.ask(deer="another", lynx="l")
    for args in ((), ("--expect", "1"), ("--expect", "3")):
        said = library.prune("--orphans", "--yes", *args)
        assert said.code == 2
        assert "2 videos of 3" in said.err
        assert library.files() == before
    assert "--expect 2" in library.prune("--orphans", "--yes").err
    assert library.prune("--orphans", "--yes", "--expect", "2").code == 0
    assert not {"videos/fox.mp4", "videos/owl.mp4"} & set(library.files())


def test_pinned_orphan_stays(library: Library) -> None:
    library.shell("restore", ROOT, "fox")
    library.ask(deer="d", owl="o")
    said = library.prune("--orphans", "--delete", "--yes", "--json")
    assert {"file": "videos/fox.mp4", "reason": "pinned"} in said.json["left"]
    assert "videos/fox.mp4" in library.files()


def test_open_task_of_an_orphan_is_collected(library: Library) -> None:
    """Its videos may go, what is still to come may not."""
    library.box.configure(median_s=3.0)
    library.ask(fox="e", deer="d", owl="o", limits={"task_timeout": "200ms"})
    assert library.run().code == 1
    assert library.outcomes("fox")[-1] == "open"
    library.ask(deer="d", owl="o")
    said = library.prune("--orphans", "--delete", "--yes", "--json")
    assert said.json["deleted"] == 3
    assert library.outcomes("fox") == ["discarded"] * 3 + ["open"]
    assert library.run().code == 0
    assert library.outcomes("fox")[-1] == "former"
    assert (library.created, len(library.versions())) == (1, 1)


# -- versions


def test_manifest_keeps_all_versions_by_default(library: Library) -> None:
    said = library.prune("--versions", "--delete", "--yes", "--json")
    assert (said.code, said.json["files"]) == (0, [])


def test_versions_beyond_the_newest_go(library: Library) -> None:
    library.ask(keep={"keep_versions": 1}, fox="c", deer="d", owl="o")
    oldest, newest = library.versions()
    said = library.prune("--versions", "--delete", "--yes", "--json")
    assert [item["file"] for item in said.json["files"]] == [oldest]
    assert library.versions() == [newest]
    assert library.outcomes("fox") == ["discarded", "former", "current"]


def test_version_deleted_by_hand_does_not_count(library: Library) -> None:
    """Else the only one that is left would go as the second."""
    library.ask(keep={"keep_versions": 1}, fox="c", deer="d", owl="o")
    oldest, newest = library.versions()
    (library.root / newest).unlink()
    said = library.prune("--versions", "--delete", "--yes", "--json")
    assert (said.code, said.json["files"]) == (0, [])
    assert library.versions() == [oldest]


def test_version_edited_by_hand_stays(library: Library) -> None:
    """Also where it has the size that landed, and as long as it is what a person has made of it."""
    library.ask(keep={"keep_versions": 1}, fox="c", deer="d", owl="o")
    oldest, _ = library.versions()
    landed = (library.root / oldest).read_bytes()
    (library.root / oldest).write_bytes(landed[:-9] + b"my title!")
    said = library.prune("--versions", "--delete", "--yes", "--json")
    assert said.json["left"] == [{"file": oldest, "reason": "changed by hand"}]
    assert library.files()[oldest].endswith(b"my title!")
    (library.root / oldest).write_bytes(landed)
    assert library.prune("--versions", "--delete", "--yes", "--json").json["deleted"] == 1


@pytest.mark.parametrize(("within", "deleted"), [("90d", 0), ("1ms", 1)])
def test_either_rule_keeps_a_version(library: Library, within: str, deleted: int) -> None:
    keep = {"keep_versions": 1, "keep_within": within}
    library.ask(keep=keep, fox="c", deer="d", owl="o")
    assert library.prune("--versions", "--delete", "--yes", "--json").json["deleted"] == deleted


def test_nothing_is_deleted_by_a_run(library: Library) -> None:
    before = library.files()
    library.ask(keep={"keep_versions": 1}, fox="c", deer="d", owl="o")
    assert library.run().code == 0
    assert library.files() == before


def test_version_that_the_manifest_wants_again_stays(library: Library) -> None:
    """The next run brings it back; to delete it would be to pay for it again."""
    library.ask(keep={"keep_within": "1ms"}, fox="a", deer="d", owl="o")
    said = library.prune("--versions", "--delete", "--yes", "--json")
    assert [item["reason"] for item in said.json["left"]] == ["wanted by the manifest"]
    assert len(library.versions()) == 1
    assert library.run().code == 0
    assert library.created == 0


def test_version_under_a_pin_stays(library: Library) -> None:
    """And so does the one that the manifest asks for: --unpin brings it back."""
    library.shell("restore", ROOT, "fox")
    library.ask(keep={"keep_within": "1ms"}, fox="c", deer="d", owl="o")
    said = library.prune("--versions", "--delete", "--yes", "--json")
    assert said.json["deleted"] == 1
    assert library.outcomes("fox") == ["discarded", "current", "former"]
    library.shell("restore", ROOT, "fox", "--unpin")
    assert library.run().code == 0
    assert library.created == 0


# -- strays


def test_unknown_file_is_a_stray(library: Library) -> None:
    (library.root / "videos/mine.mp4").write_bytes(b"my own")
    said = library.prune("--strays", "--delete", "--yes", "--json")
    (item,) = said.json["files"]
    assert (item["file"], item["reason"]) == ("videos/mine.mp4", "unknown to the state")
    assert "videos/mine.mp4" not in library.files()
    assert len(library.files()) == 5


def test_copy_of_a_restored_version_is_no_stray(library: Library) -> None:
    """A restore that died just before its end leaves it."""
    there = library.files().keys()
    library.shell("restore", ROOT, "fox")
    (vacated,) = there - library.files().keys()
    shutil.copy(library.root / "videos/fox.mp4", library.root / vacated)
    before = library.files()
    assert len(before) == 6
    assert library.prune("--strays", "--delete", "--yes", "--json").json["files"] == []
    assert library.files() == before


def test_deleted_video_takes_its_copy_along(library: Library) -> None:
    """A restore that died just before its end has left one; nothing would look there any more."""
    there = library.files().keys()
    library.shell("restore", ROOT, "fox")
    (vacated,) = there - library.files().keys()
    shutil.copy(library.root / "videos/fox.mp4", library.root / vacated)
    library.ask(deer="d", owl="o")
    library.shell("restore", ROOT, "fox", "--unpin")
    said = library.prune("--orphans", "--delete", "--yes", "--json")
    assert {item["file"] for item in said.json["files"]} >= {"videos/fox.mp4", vacated}
    assert list(library.files()) == ["videos/deer.mp4", "videos/owl.mp4"]


def test_copy_under_an_earlier_id_goes_along(library: Library) -> None:
    """Versions keep the folder of the id that their job had; a restore did not come to empty its own."""
    library.ask(wolf="c", deer="d", owl="o")
    assert library.run().code == 0
    there = library.files().keys()
    library.shell("restore", ROOT, "wolf")
    (vacated,) = there - library.files().keys()
    assert vacated.startswith("versions/fox/")
    shutil.copy(library.root / "videos/wolf.mp4", library.root / vacated)
    library.ask(deer="d", owl="o")
    library.shell("restore", ROOT, "wolf", "--unpin")
    said = library.prune("--orphans", "--delete", "--yes", "--json")
    assert {item["file"] for item in said.json["files"]} >= {"videos/wolf.mp4", vacated}
    assert list(library.files()) == ["videos/deer.mp4", "videos/owl.mp4"]


@pytest.mark.parametrize("more", [[], ["--strays"]])
def test_deleted_version_takes_its_former_name_along(library: Library, more: list[str]) -> None:
    """A run had given it a name under versions/, and did not come to put the next video in its place."""
    library.ask(fox="c", deer="d")
    assert library.prune("--orphans", "--yes").code == 0
    (version,) = library.versions("owl")
    os.link(library.root / version, library.root / "videos/owl.mp4")
    said = library.prune("--orphans", *more, "--delete", "--yes", "--json")
    assert [item["file"] for item in said.json["files"]] == [version, "videos/owl.mp4"]
    assert not any("owl" in file for file in library.files())


def test_second_copy_is_a_stray_and_the_only_one_is_not(library: Library) -> None:
    oldest = library.root / library.versions()[0]
    shutil.copy(library.root / "videos/owl.mp4", library.root / "videos/owl copy.mp4")
    oldest.rename(library.root / "videos/renamed by hand.mp4")
    said = library.prune("--strays", "--delete", "--yes", "--json")
    assert [item["reason"] for item in said.json["files"]] == ["a second copy of videos/owl.mp4"]
    (left,) = said.json["left"]
    assert left["file"] == "videos/renamed by hand.mp4"
    assert (library.root / left["file"]).exists()


def test_file_of_a_job_with_an_open_task_stays(library: Library) -> None:
    """A run may have died just after it had placed the video there."""
    owl = library.root / "videos/owl.mp4"
    with closing(sqlite3.connect(library.root / ".kling-batch/state.db")) as state, state:
        state.execute(
            "UPDATE attempts SET state = 'Generated', file = NULL, detail = json_remove(detail,"
            " '$.file', '$.bytes', '$.sha256', '$.video', '$.landed_at') WHERE job_id = 'owl'"
        )
    said = library.prune("--strays", "--delete", "--yes", "--json")
    assert said.json["files"] == []
    assert owl.exists()


# -- asking


@pytest.mark.parametrize(
    ("args", "words"),
    [
        ((), "--orphans, --versions or --strays"),
        (("--orphans",), "--yes"),
        (("--orphans", "--select", "fxo"), "matches no job"),
    ],
)
def test_wrong_usage_changes_nothing(library: Library, args: tuple[str, ...], words: str) -> None:
    library.ask(fox="c", deer="d")
    before = library.files()
    said = library.prune(*args)
    assert said.code == 2
    assert words in said.err
    assert library.files() == before


def test_without_delete_nothing_is_deleted(library: Library) -> None:
    (library.root / "videos/mine.mp4").write_bytes(b"my own")
    library.ask(keep={"keep_within": "1ms"}, fox="c", deer="d", owl="o")
    before = library.files()
    said = library.prune("--versions", "--strays", "--yes")
    assert said.code == 0
    assert "nothing is deleted without --delete" in said.out
    assert said.out.count("(kept)") == 3
    assert library.files() == before


def test_dry_run_only_lists(library: Library) -> None:
    library.ask(fox="c", deer="d")
    before = library.shell.files()
    said = library.prune("--orphans", "--delete", "--dry-run")
    assert said.code == 0
    assert "videos/owl.mp4" in said.out
    assert "would delete 1 file" in said.out
    assert library.shell.files() == before


def test_selection_narrows(library: Library) -> None:
    library.ask(fox="c")
    args = ("--orphans", "--yes", "--expect", "2", "--json")
    said = library.prune("--select", "ow*", *args)
    assert [item["file"] for item in said.json["files"]] == ["videos/owl.mp4"]
    assert "videos/deer.mp4" in library.files()


def test_folder_of_a_run_is_locked(library: Library) -> None:
    library.ask(fox="c", deer="d")
    with lock.hold(library.root / ".kling-batch/lock"):
        assert library.prune("--orphans", "--yes").code == 75


def test_broken_manifest_prunes_nothing(library: Library) -> None:
    before = library.files()
    library.manifest.write_text("version: 1\njobs: [{id: fox, prmpt: c}]\n")
    assert library.prune("--orphans", "--yes").code == 2
    assert library.files() == before


@pytest.mark.parametrize("delete", [False, True])
def test_files_beside_a_video_go_with_it(library: Library, delete: bool) -> None:
    library.ask(keep={"sidecar": True}, fox="e", deer="d", owl="o2")
    assert library.run().code == 0
    assert (library.root / "videos/owl.json").exists()
    library.ask(keep={"sidecar": True}, fox="e", deer="d")
    library.prune("--orphans", "--yes", *(["--delete"] if delete else []))
    assert not (library.root / "videos/owl.json").exists()
    beside = list((library.root / "versions/owl").glob("*.json"))
    assert len(beside) == (0 if delete else 2)
