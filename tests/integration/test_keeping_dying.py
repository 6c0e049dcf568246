"""A `restore` or `prune` that dies: at every step nothing is lost that was to stay, and runs are free."""

from __future__ import annotations

import asyncio
import hashlib
import json
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")

REPOSITORY = Path(__file__).parents[2]
SCRIPT = Path(__file__).with_name("mortal_commands.py")
OLD, NEW = "an old fox", "a new fox"


async def killed(desk: Any, *args: Any) -> Iterator[str]:
    """Kill a command at each of its steps; yield the step, with the desk at the folder it left."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, SCRIPT, desk.root, desk.tmp_path, *map(str, args)),
        stdout=asyncio.subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": str(REPOSITORY)},
    )
    out, _ = await process.communicate()
    assert process.returncode == 0
    left = [json.loads(line) for line in out.splitlines()]

    def folders() -> Iterator[str]:
        for item in left:
            desk.root = Path(item["out"])
            yield item["step"]

    return folders()


def ask(prompt: str, job_id: str = "fox") -> list[dict[str, Any]]:
    return [{"id": job_id, "prompt": prompt}]


def sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def contents(root: Path) -> set[str]:
    return {sha256(path) for path in root.rglob("*.mp4")}


async def command(*args: Any) -> None:
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "batch", *map(str, args)),
        stdout=asyncio.subprocess.DEVNULL,
        env={**os.environ, "PYTHONPATH": str(REPOSITORY)},
    )
    assert await process.wait() == 0


async def test_death_at_any_step_of_a_restore_is_free(desk: Any) -> None:
    """The run after it has the manifest's video or the restored one, and a restore works again."""
    steps = set()
    async with desk.sandbox(clip="prompt") as box:
        for prompt in (OLD, NEW):
            await desk.run(box, ask(prompt))
        old, new = (row["sha256"] for row in desk.rows)
        for step in await killed(desk, "restore", "{}", "fox"):
            steps.add(step)
            assert contents(desk.root) == {old, new}, step
            summary = await desk.run(box, ask(NEW), is_checked=False)
            assert (summary.tasks_created, summary.exit_code) == (0, 0), step
            is_done = desk.last["fox"]["sha256"] == old
            assert sha256(desk.videos["fox.mp4"]) == (old if is_done else new), step
            if step == "after link":  # the same as any of those that are not done
                await command("restore", desk.root, "fox")
                assert sha256(desk.videos["fox.mp4"]) == old
            assert desk.plan(box, ask(NEW)) == {"unchanged": 1}, step
            assert contents(desk.root) == {old, new}, step
            desk.check_secrets()
        assert box.stats.created == 2
    assert {"after link", "before write", "after write", "before move", "after move", ""} <= steps


OWL = [*ask(NEW), *ask("an owl", "owl")]


async def library(desk: Any, box: Any) -> tuple[str, set[str]]:
    """Make a library whose owl has left the manifest; return its video and the others."""
    await desk.run(box, [*ask(OLD), *ask("an owl", "owl")])
    await desk.run(box, OWL)
    desk.manifest(ask(NEW))
    owl = sha256(desk.videos["owl.mp4"])
    return owl, contents(desk.root) - {owl}


async def test_death_at_any_step_of_a_move_keeps_the_orphan(desk: Any) -> None:
    """The next prune ends it: one name under versions/, which comes back unpaid."""
    steps = set()
    prune = ("prune", desk.tmp_path / "night.yaml", "--orphans", "--yes", "--output-dir")
    async with desk.sandbox(clip="prompt") as box:
        owl, others = await library(desk, box)
        for step in await killed(desk, *prune, "{}"):
            steps.add(step)
            desk.manifest(ask(NEW))
            assert contents(desk.root) == {owl, *others}, step
            await command(*prune, desk.root)
            assert contents(desk.root) == {owl, *others}, step
            assert list(desk.videos) == ["fox.mp4"], step
            assert len(list((desk.root / "versions/owl").iterdir())) == 1, step
        summary = await desk.run(box, OWL)
        assert (summary.tasks_created, sha256(desk.videos["owl.mp4"])) == (0, owl)
    assert {
        "after link",
        "after flush",
        "before write",
        "after write",
        "before unlink",
        "",
    } <= steps


async def test_death_at_any_step_of_a_deletion_loses_no_knowledge(desk: Any) -> None:
    """A file that is left is a stray; the task is known, and its video is fetched again unpaid."""
    steps = set()
    delete = ("--delete", "--yes", "--output-dir")
    prune = ("prune", desk.tmp_path / "night.yaml", "--orphans", *delete)
    async with desk.sandbox(clip="prompt") as box:
        owl, others = await library(desk, box)
        for step in await killed(desk, *prune, "{}"):
            steps.add(step)
            desk.manifest(ask(NEW))
            assert others <= contents(desk.root), step
            is_known = desk.states()["Discarded"] == 1
            assert is_known or owl in contents(desk.root), step
            await command(*prune[:2], "--orphans", "--strays", *delete, desk.root)
            assert contents(desk.root) == others, step
            assert desk.states() == {"Landed": 2, "Discarded": 1}
            if step == "after write":
                summary = await desk.run(box, OWL)
                assert (summary.tasks_created, sha256(desk.videos["owl.mp4"])) == (0, owl)
        assert box.stats.created == 3
    assert {"before write", "after write", "before unlink", "after unlink", ""} <= steps


async def test_death_at_any_step_at_the_bucket_loses_nothing(
    desk: Any, s3: Any, bucket: Any, monkeypatch: Any
) -> None:
    """A video displaced, one renamed, the list of all, local copies to remove: the next run ends it."""
    desk.limits["deadline"] = "1h"
    desk.extra["output"] |= {"index": True}
    steps = set()
    async with desk.sandbox(clip="prompt") as box:
        await desk.run(box, [*ask(OLD), *ask("an owl", "owl")])
        bucket.refuses["PUT", ""] = "503 Slow Down", "SlowDown"
        await desk.run(box, [*ask(NEW), *ask("an owl", "owl")])
        bucket.refuses.clear()
        contents = {sha256(path) for path in desk.root.rglob("*.mp4")}
        assert (len(contents), len(bucket.objects)) == (3, 3)
        desk.extra["output"]["local"] = "remove"
        jobs = [*ask(NEW), *ask("an owl", "eagle")]
        desk.manifest(jobs)
        monkeypatch.setenv("COMETAPI_KEY", "sk-verysecretkey0123456789")
        args = ("--base-url", box.base_url, "--quiet", "--output-dir", "{}")
        for step in await killed(desk, "run", desk.tmp_path / "night.yaml", *args):
            steps.add(step)
            there = s3.world(bucket, desk.root.name)
            here = {sha256(path) for path in desk.root.rglob("*.mp4")}
            kept = {hashlib.sha256(data).hexdigest() for data in there.objects.values()}
            assert contents <= here | kept, step
            monkeypatch.setenv("AWS_ENDPOINT_URL", f"{bucket.server}/{desk.root.name}")
            summary = await desk.run(box, jobs, is_checked=False)
            assert (summary.exit_code, summary.tasks_created) == (0, 0), (step, summary.warnings)
            found = {key: hashlib.sha256(data).hexdigest() for key, data in there.objects.items()}
            assert {key for key in found if not key.startswith("versions/fox/")} == {
                "index.json",
                "videos/eagle.mp4",
                "videos/fox.mp4",
            }, step
            assert contents < set(found.values()), step
            assert list(desk.root.rglob("*.mp4")) == [], step
            assert desk.plan(box, jobs) == {"unchanged": 2}, step
            there.requests.clear()
            await desk.run(box, jobs, is_checked=False)
            assert there.requests == [], step
        assert box.stats.created == 3
    assert {"after put", "after copy", "after write", "after delete", "after unlink", ""} <= steps
