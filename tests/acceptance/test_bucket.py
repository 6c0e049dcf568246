"""The installed command with a bucket: what it says of it, and what else changes there."""

from __future__ import annotations

import json
import re
from typing import Any

import pytest
from s3 import SECRET, Bucket

FOX, OWL = {"id": "fox", "prompt": "a fox"}, {"id": "owl", "prompt": "an owl"}
NEW_FOX = {**FOX, "prompt": "a fox at night"}


class Library:
    """A library whose videos are only in its bucket."""

    def __init__(self, shell: Any, box: Any, bucket: Bucket) -> None:
        self.shell, self.box, self.bucket = shell, box, bucket
        self.manifest([FOX, OWL])

    def manifest(self, jobs: list[dict[str, str]], **output: str) -> None:
        output = {"target": self.bucket.url, "local": "remove", **output}
        self.path = self.shell.manifest(jobs, output=output, base_url=self.box.base_url)

    def __call__(self, command: str, *args: Any, **env: str) -> Any:
        said = self.shell(command, *args, **self.bucket.environ, **env)
        assert SECRET not in said.out + said.err
        for name, data in self.shell.files().items():
            assert SECRET.encode() not in data, name
        return said

    def here(self) -> list[str]:
        """Return the videos that are here."""
        return [name for name in self.shell.files() if name.endswith(".mp4")]


@pytest.fixture
def library(shell: Any, sandbox: Any, s3: Any) -> Library:
    made = Library(shell, sandbox(clip="prompt"), s3.bucket())
    said = made("run", made.path)
    assert (said.code, said.err.count("warning")) == (0, 0)
    assert f"2 files uploaded to {made.bucket.url}" in said.out
    return made


def test_quiet_night_loads_nothing_for_the_bucket(library: Library) -> None:
    library.bucket.requests.clear()
    imported = library("run", library.path, PYTHONPROFILEIMPORTTIME="1").err
    assert "batch.output.uploaded" in imported
    for name in ("obstore", "asyncio", "batch.output.bucket"):
        assert name not in imported
    assert library.bucket.requests == []
    assert library.here() == []


def test_plan_and_status_say_what_is_uploaded(library: Library) -> None:
    url = library.bucket.url
    assert f"2 videos uploaded to {url}; each video that lands" in library("plan", library.path).out
    size = sum(map(len, library.bucket.objects.values()))
    uploads = {"target": url, "local": "remove", "uploaded": 2, "bytes": size, "pending": 0}
    assert library("plan", library.path, "--json").json["uploads"] == uploads
    (found,) = library("status", "--json").json
    assert (found["uploads"], found["paid_without_file"]) == (uploads, [])
    assert f"2 videos uploaded to {url}" in library("status").out
    tasks = library("ledger", "--json").json["tasks"]
    assert [(task["here"], task["url"]) for task in tasks] == [
        (True, f"{url}/videos/{task['job_id']}.mp4") for task in tasks
    ]


def test_plan_says_what_is_still_to_be_uploaded(library: Library) -> None:
    library.bucket.refuses["PUT", ""] = "503 Slow Down", "SlowDown"
    library.manifest([NEW_FOX, OWL])
    said = library("run", library.path)
    assert (said.code, "2 files not uploaded (it answers 503)" in said.err) == (1, True)
    assert "2 videos uploaded" in library("plan", library.path).out
    assert ", 2 to upload" in library("plan", library.path, "--quiet").out
    assert library("plan", library.path, "--json").json["uploads"]["pending"] == 2


def test_version_comes_back_from_the_bucket(library: Library) -> None:
    old = library.bucket.objects["videos/fox.mp4"]
    library.manifest([NEW_FOX, OWL])
    assert library("run", library.path).code == 0
    new = library.bucket.objects["videos/fox.mp4"]
    listed = library("restore", "outputs/night", "fox", "--list")
    assert listed.out.count("in the bucket") == 2
    assert library("restore", "outputs/night", "fox").code == 0
    objects = library.bucket.objects
    assert objects["videos/fox.mp4"] == old
    assert new in objects.values()
    assert library.here() == []
    library.bucket.requests.clear()
    assert library("run", library.path).code == 0
    assert library.bucket.requests == []
    assert library.box.stats.created == 3


def test_pruned_video_goes_from_the_bucket(library: Library) -> None:
    library.manifest([OWL])
    prune = ("prune", library.path, "--orphans", "--yes")
    said = library(*prune)
    assert (said.code, "moved 1 file to versions/" in said.out) == (0, True)
    moved, owl = library.bucket.objects
    assert (moved.startswith("versions/fox/"), owl) == (True, "videos/owl.mp4")
    assert library(*prune, "--delete").code == 0
    assert list(library.bucket.objects) == ["videos/owl.mp4"]


def test_version_of_the_bucket_stays_listed(library: Library) -> None:
    """From remove to keep it stays there alone, until it is restored or pruned."""
    index = library.shell.folder / "outputs/night/index.json"
    for jobs in ([FOX, OWL], [NEW_FOX, OWL]):
        library.manifest(jobs, sidecar="json")
        assert library("run", library.path).code == 0
    (version,) = (name for name in library.bucket.objects if name.endswith("Z.mp4"))
    library.manifest([NEW_FOX, OWL], sidecar="json", local="keep", keep_versions="1")
    assert library("run", library.path).code == 0
    assert [item["file"] for item in json.loads(index.read_bytes())["videos"][0]["versions"]] == [
        version
    ]
    newest = {**FOX, "prompt": "a fox at noon"}
    library.manifest([newest, OWL], sidecar="json", local="keep", keep_versions="1")
    assert library("run", library.path).code == 0
    said = library("prune", library.path, "--versions", "--delete", "--yes")
    assert (said.code, version in said.out) == (0, True)
    assert version not in library.bucket.objects
    former = [name for name in library.bucket.objects if name.startswith("versions/")]
    assert [name.rpartition(".")[2] for name in sorted(former)] == ["json", "mp4"]


def test_version_of_a_former_bucket_is_listed_by_restore(library: Library) -> None:
    library.manifest([NEW_FOX, OWL])
    assert library("run", library.path).code == 0
    library.path = library.shell.manifest([NEW_FOX, OWL], base_url=library.box.base_url)
    assert library("run", library.path).code == 0
    (now, former) = library("restore", "outputs/night", "fox", "--list", "--json").json["versions"]
    assert (now["here"], former["here"], former["in_bucket"]) == (True, False, True)
    assert library("restore", "outputs/night", "fox").code == 0


def test_prune_names_the_bucket_that_a_version_is_in(library: Library) -> None:
    """The latest run did not upload to it: nothing is deleted there, and nothing asked."""
    library.manifest([NEW_FOX, OWL])
    assert library("run", library.path).code == 0
    (version,) = (name for name in library.bucket.objects if name.endswith("Z.mp4"))
    keep = {"keep_within": "1ms"}
    library.path = library.shell.manifest(
        [NEW_FOX, OWL], base_url=library.box.base_url, output=keep
    )
    assert library("run", library.path).code == 0
    library.bucket.requests.clear()
    prune = ("prune", library.path, "--versions", "--delete", "--yes")
    said = library(*prune, "--json").json
    why = f"only in {library.bucket.url}: name that as output.target, run, and prune again"
    assert (said["files"], said["left"]) == ([], [{"file": version, "reason": why}])
    assert f"{version}  {why}" in library(*prune).out
    assert library.bucket.requests == []
    library.manifest([NEW_FOX, OWL], **keep)
    assert library("run", library.path).code == 0
    assert library(*prune, "--json").json["deleted"] == 1
    assert version not in library.bucket.objects


def test_prune_lists_what_edited_videos_were_before(library: Library) -> None:
    """Only the bucket has that; it is no task of its own, so that the ledger has no line for it."""
    library.manifest([FOX, OWL], local="keep", keep_within="1ms")
    assert library("run", library.path).code == 0
    video = library.shell.folder / "outputs/night/videos/fox.mp4"
    video.write_bytes(video.read_bytes() + b"\0\0\0\x0cfreemine")
    assert library("run", library.path).code == 0
    (original,) = (name for name in library.bucket.objects if name.startswith("versions/"))
    said = library("prune", library.path, "--versions", "--delete", "--yes", "--json").json
    why = "only in the bucket: videos/fox.mp4 before an edit"
    assert (said["files"], said["left"]) == ([], [{"file": original, "reason": why}])
    assert original in library.bucket.objects
    flags = ("--versions", "--select", "owl", "--dry-run", "--json")
    assert library("prune", library.path, *flags).json["left"] == []
    assert len(library("ledger", "--json").json["tasks"]) == 2


def test_local_copies_come_back_on_request(library: Library) -> None:
    """From remove to keep: each is fetched from the bucket, not from the provider."""
    library.manifest([FOX, OWL], local="keep")
    assert "2 fetch" in library("plan", library.path).out
    asked = library.box.stats.queries
    assert library("run", library.path).code == 0
    assert library.here() == ["outputs/night/videos/fox.mp4", "outputs/night/videos/owl.mp4"]
    assert library.box.stats.queries == asked


def test_books_say_what_only_the_bucket_has(library: Library) -> None:
    """With `local: keep`, too: a former version, and an orphan whose file is gone."""
    library.manifest([NEW_FOX, OWL])
    assert library("run", library.path).code == 0
    library.manifest([NEW_FOX, OWL], local="keep")
    assert library("run", library.path).code == 0
    library.manifest([NEW_FOX], local="keep")
    assert library("run", library.path).code == 0
    library.shell.folder.joinpath("outputs/night/videos/owl.mp4").unlink()
    former, owl, fox = library("ledger", "--json").json["tasks"]
    if former["job_id"] == "owl":
        former, owl = owl, former
    assert [item["here"] for item in (former, owl, fox)] == [False, False, True]
    for item in (former, owl, fox):
        assert item["url"] == f"{library.bucket.url}/{item['file']}"
    said = library("ledger").out
    assert (said.count("  in the bucket\n"), "not here" in said) == (2, False)
    assert library("ledger", "--missing", "--json").json["tasks"] == []
    (missing,) = library("status", "--json").json[0]["paid_without_file"]
    assert (missing["job_id"], missing["url"]) == ("owl", owl["url"])
    assert f"succeeded, in the bucket: {owl['url']}\n" in library("status").out + "\n"


def test_books_say_what_another_bucket_has(library: Library) -> None:
    library.manifest([NEW_FOX, OWL])
    assert library("run", library.path).code == 0
    library.path = library.shell.manifest([NEW_FOX, OWL], base_url=library.box.base_url)
    assert library("run", library.path).code == 0
    tasks = library("ledger", "--json").json["tasks"]
    (former,) = (item for item in tasks if item["outcome"] == "former")
    assert (former["here"], former["url"]) == (False, f"{library.bucket.url}/{former['file']}")
    assert {item["url"] for item in tasks if item is not former} == {None}
    assert library("ledger").out.count("  in the bucket\n") == 1


def test_doctor_asks_the_bucket(library: Library) -> None:
    flags = ("doctor", library.path, "--base-url", library.box.base_url)
    said = library(*flags).out
    assert f"{library.bucket.url} answers; whether it can be written to was not tried" in said
    library.bucket.refuses["HEAD", ""] = "403 Forbidden", ""
    said = library(*flags)
    assert (said.code, f"{library.bucket.url}: it denies access (403)" in said.out) == (1, True)


def test_page_shows_versions_that_the_bucket_kept(library: Library) -> None:
    library.manifest([NEW_FOX, OWL])
    assert library("run", library.path).code == 0
    library.manifest([NEW_FOX, OWL], local="keep")
    assert library("run", library.path).code == 0
    fox, owl = page_of(library)["jobs"]
    assert [made.get("status") for made in (*fox["tries"], *owl["tries"])] == [None, "stored", None]


def page_of(library: Library) -> dict[str, Any]:
    """Return the data in the page of the latest run."""
    content = library.shell.files()["outputs/night/report.html"].decode()
    found = re.search(r'<script type="application/json"[^>]*>(.*?)</script>', content, re.DOTALL)
    assert found is not None
    data: dict[str, Any] = json.loads(found[1])
    return data


def test_page_shows_videos_of_the_bucket(library: Library) -> None:
    pytest.importorskip("av")
    data = page_of(library)
    assert (data["absent"]["stored"], data["needs"]) == (
        f"The video is in {library.bucket.url}.",
        [],
    )
    for job in data["jobs"]:
        (made,) = job["tries"]
        assert (made["status"], made["sha"] in data["inline"]) == ("stored", True)
