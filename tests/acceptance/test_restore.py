"""`restore`: an earlier version comes back, stays as long as its job does, and nothing is paid."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from batch.output import lock

ROOT = "outputs/night"


class Library:
    """A job with three versions, made one after the other: a, b and c, which the manifest asks for."""

    def __init__(self, shell: Any, sandbox: Any, made: Path) -> None:
        self.shell, self.root = shell, shell.folder / ROOT
        journal = shell.folder / "provider.jsonl"
        if (made / ROOT).exists():
            shutil.copytree(made, shell.folder, dirs_exist_ok=True)
        self.box = sandbox(clip="prompt", journal=journal)
        self.ask("c")
        if not self.root.exists():
            for prompt in "abc":
                self.ask(prompt)
                assert self.run().code == 0
            shutil.copytree(shell.folder, made, dirs_exist_ok=True)
        self.contents = {
            self.read(version["file"]): version["prompt"] for version in self.versions()
        }
        assert set(self.contents.values()) == set("abc")
        self.paid = len(self.box.tasks)

    def read(self, file: str) -> bytes:
        """Return the bytes of a file in the output folder."""
        return bytes((self.root / file).read_bytes())

    def ask(self, prompt: str, job_id: str = "fox") -> None:
        """Write the manifest."""
        self.manifest = self.shell.manifest([{"id": job_id, "prompt": prompt}])

    def run(self, *args: str) -> Any:
        """Run the manifest."""
        return self.shell("run", self.manifest, "--base-url", self.box.base_url, *args)

    def plan(self, *args: str) -> Any:
        """Plan the manifest."""
        return self.shell("plan", self.manifest, "--json", *args).json

    def restore(self, *args: str) -> Any:
        """Restore the job."""
        return self.shell("restore", ROOT, "fox", *args, key=None)

    def versions(self) -> list[dict[str, Any]]:
        """Return the versions, newest first."""
        found: list[dict[str, Any]] = self.restore("--list", "--json").json["versions"]
        return found

    @property
    def video(self) -> bytes:
        """The bytes of the video that stands."""
        return self.read("videos/fox.mp4")

    @property
    def stands(self) -> str:
        """The version that stands."""
        return self.contents[self.video]

    @property
    def created(self) -> int:
        """How many tasks were created since the library was made."""
        return len(self.box.tasks) - self.paid

    def files(self) -> dict[str, bytes]:
        """Read the videos and the rows."""
        found = self.shell.files().items()
        return {name: data for name, data in found if name.endswith((".mp4", ".jsonl"))}

    def kept(self) -> set[str]:
        """Return the versions that are anywhere in the folder."""
        return {self.contents[path.read_bytes()] for path in self.root.rglob("*.mp4")}


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("made")


@pytest.fixture
def library(shell: Any, sandbox: Any, made: Path) -> Library:
    return Library(shell, sandbox, made)


def test_newest_former_version_comes_back(library: Library) -> None:
    said = library.restore("--json")
    assert said.code == 0
    assert said.json["restored"]["prompt"] == "b"
    assert (said.json["restored"]["pinned"], said.json["restored"]["current"]) == (True, True)
    assert library.stands == "b"
    assert library.kept() == {"a", "b", "c"}
    row = json.loads((library.root / "results.jsonl").read_text("utf-8").splitlines()[-1])
    assert (row["status"], row["file"], row["paid"]) == ("succeeded", "videos/fox.mp4", False)
    assert row["prompt"] == "b"
    assert row["warnings"][-1].startswith("restored: the version of 20")


def test_pinned_version_is_unchanged(library: Library) -> None:
    library.restore()
    for _ in range(2):
        plan = library.plan()
        assert plan["counts"]["unchanged"] == 1
        (job,) = plan["jobs"]
        assert job["reason"].startswith("up to date, pinned to the version of 20")
        assert library.run("--quiet").out == ""
        assert (library.stands, library.created) == ("b", 0)
    assert library.shell("plan", library.manifest, "--quiet").out == ""


@pytest.mark.parametrize("part", ["sha", "time", "file"])
def test_version_is_named_by_time_or_hash(library: Library, part: str) -> None:
    oldest = library.versions()[-1]
    stem = Path(oldest["file"]).name
    name = {"sha": oldest["sha256"][:10], "time": stem.removesuffix(".mp4"), "file": stem}[part]
    said = library.restore("--version", name)
    assert said.code == 0, said.err
    assert library.stands == "a"


def test_unpinned_job_gets_its_own_version_back(library: Library) -> None:
    library.restore()
    assert library.restore("--unpin").code == 0
    assert [job["action"] for job in library.plan()["jobs"]] == ["fetch"]
    assert library.run().code == 0
    assert (library.stands, library.created) == ("c", 0)
    assert library.restore("--unpin").code == 2


def test_changed_job_ends_the_pin(library: Library) -> None:
    library.restore()
    library.ask("d")
    assert library.run().code == 0
    assert library.created == 1
    library.contents[library.video] = "d"
    library.ask("c")
    assert library.run().code == 0
    assert (library.stands, library.created) == ("c", 1), "the pin ended when d landed"
    assert library.kept() == {"a", "b", "c", "d"}


def test_round_of_force_ends_the_pin(library: Library) -> None:
    library.restore()
    assert library.run("--force").code == 0
    assert library.created == 1
    forced = library.video
    assert forced not in library.contents
    assert library.run().code == 0
    assert (library.video, library.created) == (forced, 1)


def test_renamed_job_keeps_its_pin(library: Library) -> None:
    library.restore()
    library.ask("c", "red-fox")
    assert library.run().code == 0
    moved = (library.root / "videos/red-fox.mp4").read_bytes()
    assert (library.contents[moved], library.created) == ("b", 0)
    assert library.plan()["jobs"][0]["reason"].startswith("up to date, pinned")


def test_missing_pinned_video_comes_back_unpaid(library: Library) -> None:
    library.restore()
    (library.root / "videos/fox.mp4").unlink()
    assert library.run().code == 0
    assert (library.stands, library.created) == ("b", 0)
    assert library.plan()["jobs"][0]["reason"].startswith("up to date, pinned")


def test_restored_again_and_back(library: Library) -> None:
    """Its copies in versions/ are used again, and do not multiply."""
    before, times = set(), {item["sha256"]: item["version"] for item in library.versions()}
    for number in range(3):
        assert library.restore("--version", library.versions()[-1]["sha256"]).code == 0
        assert library.stands == "a"
        assert library.restore("--version", library.versions()[0]["sha256"]).code == 0
        assert library.stands == "c"
        files = set(map(str, library.root.rglob("*.mp4")))
        assert files == before or not number
        before = files
        assert {item["sha256"]: item["version"] for item in library.versions()} == times
    assert library.plan()["counts"]["unchanged"] == 1
    assert library.plan()["jobs"] == [], "the manifest's own version needs no pin"


# -- what is refused


@pytest.mark.parametrize(
    ("args", "words"),
    [
        ((ROOT, "fxo"), "did you mean 'fox'?"),
        ((ROOT, "nothing-alike"), "there are fox"),
        ((ROOT, "fox", "--version", "19990101"), "no version of job 'fox'; its versions are"),
        ((ROOT, "fox", "--version", "20"), "no version"),
        ((ROOT, "fox", "--version", "2026", "--list"), "exclude each other"),
        ((ROOT, "fox", "--unpin"), "no version of job 'fox' is pinned"),
        (("outputs/nihgt", "fox"), "not an output folder"),
    ],
)
def test_wrong_usage_changes_nothing(library: Library, args: tuple[str, ...], words: str) -> None:
    before = library.files()
    said = library.shell("restore", *args)
    assert said.code == 2
    assert words in said.err
    assert library.files() == before


def test_several_versions_of_a_day_are_listed(library: Library) -> None:
    said = library.restore("--version", library.versions()[0]["version"][:10])
    assert said.code == 2
    assert "means 3 versions" in said.err
    assert all(version["sha256"][:12] in said.err for version in library.versions())


@pytest.mark.parametrize("what", ["gone", "changed"])
def test_version_that_is_not_here_changes_nothing(library: Library, what: str) -> None:
    version = library.root / library.versions()[-1]["file"]
    if what == "gone":
        version.unlink()
    else:
        data = bytearray(version.read_bytes())
        data[-1] ^= 1
        version.write_bytes(data)
    before = library.files()
    said = library.restore("--version", library.versions()[-1]["sha256"])
    assert said.code == 1
    assert "nothing was changed" in said.err
    assert library.files() == before


def test_folder_of_a_run_is_locked(library: Library) -> None:
    with lock.hold(library.root / ".kling-batch/lock"):
        assert library.restore().code == 75
        assert library.restore("--list").code == 0


def test_only_version_cannot_be_restored(shell: Any, sandbox: Any) -> None:
    box = sandbox()
    manifest = shell.manifest(1)
    shell("run", manifest, "--base-url", box.base_url)
    said = shell("restore", ROOT, "job-0", "--json")
    assert said.code == 2
    assert "has no former version" in said.json["problems"][0]["message"]


def test_copied_library_restores_without_its_provider(library: Library) -> None:
    copy = library.shell.folder / "outputs/copy"
    shutil.copytree(library.root, copy)
    assert library.shell("restore", "outputs/copy", "fox", key=None).code == 0
    assert library.contents[(copy / "videos/fox.mp4").read_bytes()] == "b"
    assert library.stands == "c"
