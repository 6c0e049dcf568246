"""The commands on a folder whose state is in Postgres, and `engine` itself."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest
from cluster import Cluster

URL = "KLING_BATCH_ENGINE"
PASSWORD = "geheim-und-lang"


class Desk:
    """A folder after its first night on one machine, and an engine."""

    def __init__(self, shell: Any, box: Any, url: str) -> None:
        self.shell, self.box = shell, box
        self.engine = {URL: url.replace("kling@", f"kling:{PASSWORD}@")}
        jobs = [{"id": "a", "prompt": "fox"}, {"id": "bad", "prompt": "sandbox:moderation"}]
        self.manifest = shell.manifest(jobs, base_url=box.base_url)
        self.root = shell.folder / "outputs" / "night"

    def __call__(self, *args: Any, with_engine: bool = True) -> Any:
        said = self.shell(*args, **(self.engine if with_engine else {}))
        assert PASSWORD not in said.out + said.err
        return said

    def created(self) -> int:
        return self.box.stats.counts()["tasks_created"]


@pytest.fixture
def desk(shell: Any, sandbox: Any, engine_url: str) -> Desk:
    desk = Desk(shell, sandbox(), engine_url)
    assert desk("run", desk.manifest, with_engine=False).code == 1
    return desk


def test_folder_goes_into_postgres_and_back(desk: Desk) -> None:
    """Each command says the same of it there; nothing is paid for again."""
    results = (desk.root / "results.jsonl").read_bytes()
    asked = (
        ("plan", desk.manifest, "--json"),
        ("status", desk.root, "--json"),
        ("ledger", desk.root, "--json"),
    )
    before = [desk(*args, with_engine=False).json for args in asked]
    said = desk("engine", "import", desk.root)
    assert said.code == 0
    assert "is in Postgres now" in said.out
    assert [desk(*args).json for args in asked] == before
    assert desk("run", desk.manifest, "--json").json["planned"] == {"unchanged": 1, "resting": 1}
    assert desk("report", desk.root).code == 0
    assert desk("restore", desk.root, "a", "--list").code == 0
    doctor = desk("doctor", desk.manifest)
    assert "the database test_" in doctor.out
    assert "knows 2 jobs" in doctor.out
    assert desk("engine", "export", desk.root).code == 0
    after = [desk(*args, with_engine=False).json for args in asked]
    assert after[0] == before[0]
    assert (desk.root / "results.jsonl").read_bytes() == results
    assert desk.box.stats.counts()["created"] == 2


def test_without_the_engine_the_folder_is_refused(desk: Desk) -> None:
    desk("engine", "import", desk.root)
    for args in (("run", desk.manifest), ("plan", desk.manifest), ("status", desk.root)):
        said = desk(*args, with_engine=False)
        assert said.code == 1
        assert f"set {URL} to its address" in said.err


def test_copy_of_a_folder_shares_no_state(desk: Desk) -> None:
    """What is missing in one of them would be made again for both."""
    desk("engine", "import", desk.root)
    copy = desk.root.with_name("copy")
    shutil.copytree(desk.root, copy)
    in_copy = ("--output-dir", copy)
    commands = (("run", desk.manifest, *in_copy), ("plan", desk.manifest, *in_copy))
    for args in (*commands, ("status", copy), ("engine", "export", copy)):
        said = desk(*args)
        assert (said.code, f"{copy} is a copy of {desk.root}" in said.err) == (2, True)
    assert desk("status", desk.root).code == 0


def test_moved_folder_keeps_its_state(desk: Desk) -> None:
    """Also where its former path leads to it."""
    desk("engine", "import", desk.root)
    moved = desk.root.rename(desk.root.with_name("moved"))
    for make in (lambda: None, lambda: desk.root.symlink_to(moved)):
        make()
        said = desk("run", desk.manifest, "--output-dir", moved, "--json")
        assert said.json["planned"] == {"unchanged": 1, "resting": 1}


def test_prune_and_restore_work_in_postgres(desk: Desk) -> None:
    desk("engine", "import", desk.root)
    desk.shell.manifest([{"id": "bad", "prompt": "sandbox:moderation"}], base_url=desk.box.base_url)
    said = desk("prune", desk.manifest, "--orphans", "--expect", "1", "--yes", "--json")
    assert said.code == 0, said.err
    assert not (desk.root / "videos" / "a.mp4").exists()
    assert desk("restore", desk.root, "a").code == 0
    assert (desk.root / "videos" / "a.mp4").exists()


def test_engine_may_be_in_the_env_file(desk: Desk, shell: Any, cluster: Cluster) -> None:
    file = shell.folder / ".env"
    url = cluster.create().replace("kling@", f"kling:{PASSWORD}@")
    file.write_text(f"{URL}='{url}'  # ours\n", "utf-8")
    for words in ("has the tables of kling-batch now", "is up to date"):
        said = desk("engine", "init", "--env-file", file, with_engine=False)
        assert words in said.out
    assert desk("engine", "import", desk.root, "--env-file", file, with_engine=False).code == 0
    file.write_text(f"COMETAPI_KEY=sk-example-000000000\n{file.read_text()}", "utf-8")
    planned = desk("plan", desk.manifest, "--json", "--env-file", file, with_engine=False)
    counts = planned.json["counts"]
    assert (counts["unchanged"], counts["resting"], sum(counts.values())) == (1, 1, 2)


@pytest.mark.parametrize(
    ("url", "words"),
    [
        (
            f"postgresql://kling:{PASSWORD}@127.0.0.1:9/studio",
            "database studio on 127.0.0.1 does not",
        ),
        (f"postgresql://kling:{PASSWORD}@127.0.0.1:port/studio", 'invalid integer value "port"'),
        (f"{PASSWORD}", "not a valid address of Postgres"),
        ("", f"no engine: set {URL}"),
    ],
)
def test_engine_that_is_none_is_told(shell: Any, url: str, words: str) -> None:
    pytest.importorskip("psycopg")
    said = shell("engine", "init", **{URL: url})
    assert said.code in {1, 2}
    assert words in said.err
    assert PASSWORD not in said.out + said.err


def test_worker_without_the_extra_says_what_to_install(shell: Any, tmp_path: Path) -> None:
    (tmp_path / "dbos.py").write_text("raise ImportError('no dbos')")
    environ = {"PYTHONPATH": str(tmp_path), "KLING_BATCH_ENGINE": "postgresql://h/d"}
    said = shell("worker", is_fresh=True, **environ)
    assert (said.code, "pip install 'kling-batch[fleet]'" in said.err) == (2, True), said.err
