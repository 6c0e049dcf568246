"""What the shell completes, tried through the shell's own machinery."""

from __future__ import annotations

import shutil
import subprocess
from typing import Any

import pytest

JOBS = [
    {"id": "sky/day", "prompt": "a sky", "tags": ["blue"]},
    {"id": "sky/night", "prompt": "a night sky"},
    {"id": "sea", "prompt": "a sea"},
]


def completed(shell: Any, *words: str) -> list[str]:
    """Complete the last of *words* in bash, as the Tab key does."""
    script = """
        eval "$(kling-batch completion bash)"
        COMP_WORDS=("$@") COMP_CWORD=$(($# - 1))
        _kling_batch_completion kling-batch
        printf '%s\\n' "${COMPREPLY[@]}"
    """
    environment = shell.env(None, {})
    environment["PATH"] = f"{shell.command[0].rpartition('/')[0]}:/usr/bin:/bin"
    done = subprocess.run(
        ["bash", "--norc", "-c", script, "bash", "kling-batch", *words],
        cwd=shell.folder,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.stderr == ""
    return done.stdout.split()


pytestmark = pytest.mark.skipif(not shutil.which("bash"), reason="needs bash")


def test_commands_and_options_are_completed(shell: Any) -> None:
    assert completed(shell, "p") == ["plan", "prune"]
    assert completed(shell, "run", "--sub") == ["--submit-rate"]
    assert completed(shell, "help", "mon") == ["money-rule"]


def test_manifests_are_completed_also_in_folders(shell: Any) -> None:
    shell.manifest(1)
    (shell.folder / "jobs").mkdir()
    shell.manifest(1, name="jobs/day.yml")
    (shell.folder / "notes.txt").write_text("")

    assert completed(shell, "run", "") == ["jobs/day.yml", "night.yaml"]
    assert completed(shell, "plan", "ni") == ["night.yaml"]
    assert completed(shell, "run", "jobs/") == ["jobs/day.yml"]


def test_job_ids_are_completed_for_select(shell: Any) -> None:
    shell.manifest(JOBS)
    assert completed(shell, "run", "night.yaml", "--select", "sky") == ["sky/day", "sky/night"]
    everything = completed(shell, "plan", "night.yaml", "--exclude", "")
    assert {"sea", "tag:blue", "state:failed"} < set(everything)


def test_nothing_is_completed_from_a_broken_manifest(shell: Any) -> None:
    """And no message lands in the line typed."""
    (shell.folder / "night.yaml").write_text("jobs: [")
    assert completed(shell, "run", "night.yaml", "--select", "s") == []
    assert completed(shell, "run", "nope.yaml", "--select", "s") == []


def test_output_folders_are_completed(shell: Any) -> None:
    assert shell("run", shell.manifest(1), "--sandbox").code == 0
    assert completed(shell, "status", "") == ["outputs/night.sandbox"]


@pytest.mark.parametrize("name", ["bash", "zsh", "fish"])
def test_script_of_each_shell_is_one(shell: Any, name: str) -> None:
    said = shell("completion", name, key=None)
    assert (said.code, said.err) == (0, "")
    assert f"_KLING_BATCH_COMPLETE={name}_complete" in said.out
    if shutil.which(name):
        done = subprocess.run([name, "-n"], input=said.out, text=True, check=False)
        assert done.returncode == 0


def test_completion_of_another_shell_is_refused(shell: Any) -> None:
    assert shell("completion", "tcsh", key=None).code == 2
