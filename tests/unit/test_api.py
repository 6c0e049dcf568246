"""The Python API: rows as they come, options checked by mypy and at entry."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

import batch
from batch.sandbox import SandboxConfig, serve

USE = """\
import batch

manifest = batch.load_manifest("m.yaml")
batch.plan_run(manifest, {})
batch.open_run(manifest, {})
"""


@pytest.fixture
def manifest(tmp_path: Path) -> batch.Manifest:
    path = tmp_path / "night.yaml"
    path.write_text(
        "version: 1\nlimits: {poll_interval: 50ms}\n"
        "jobs: [{id: a, prompt: fox}, {id: b, prompt: hare}]\n"
    )
    return batch.load_manifest(path)


async def test_run_yields_rows_then_a_summary(manifest: batch.Manifest, tmp_path: Path) -> None:
    out = tmp_path / "out"
    async with serve(SandboxConfig(median_s=0.05, clip="tiny")) as box:
        url, key = box.base_url, "sk-any"
        async with batch.open_run(
            manifest, base_url=url, api_key=key, select=["a"], output_dir=out, new=True
        ) as run:
            rows = [row async for row in run]

    assert [(row["job_id"], row["status"]) for row in rows] == [("a", "succeeded")]
    assert run.summary.tasks_created == 1
    assert batch.plan_run(manifest, output_dir=out).counts == {"unchanged": 1, "new": 1}


async def test_new_library_must_be_meant(manifest: batch.Manifest, tmp_path: Path) -> None:
    with pytest.raises(batch.UsageError, match="is a new library"):
        async with batch.open_run(manifest, api_key="sk-any", output_dir=tmp_path / "out"):
            pass

    assert not (tmp_path / "out").exists()


async def test_unusable_option_touches_nothing(manifest: batch.Manifest, tmp_path: Path) -> None:
    with pytest.raises(batch.UsageError, match="^max_in_flight: "):
        async with batch.open_run(manifest, sandbox=True, max_in_flight=0):
            pass

    assert not (tmp_path / "outputs").exists()


@pytest.mark.parametrize(
    ("options", "is_right"),
    [
        ("select=['a'], budget_usd=5, force=True, output_dir=None", True),
        ("select='a*'", False),
        ("max_in_flight='5'", False),
        ("budget=5", False),
    ],
)
def test_mypy_checks_options(options: str, is_right: bool, tmp_path: Path) -> None:
    pytest.importorskip("mypy", reason="the linters are not installed")
    path = tmp_path / "use.py"
    path.write_text(USE.format(options, options))
    cache = Path(__file__).parents[2] / ".mypy_cache"
    done = subprocess.run(
        [sys.executable, "-m", "mypy", "--strict", f"--cache-dir={cache}", path],
        cwd=Path(__file__).parents[2],
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.stdout.count("error:") == 0) is is_right, done.stdout
