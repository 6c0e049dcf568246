"""What the shell completes, tried through the shell's own machinery."""

from __future__ import annotations

import shutil
import subprocess
from typing import Any

import pytest

ODD = "it's #1 $x"
JOBS = [
    {"id": ODD, "prompt": "an odd one"},
    {"id": "sky/day", "prompt": "a sky", "tags": ["blue"]},
    {"id": "sky/night", "prompt": "a night sky"},
    {"id": "sea", "prompt": "a sea"},
]


def completed(shell: Any, *words: str) -> list[str]:
    """Complete the last of *words* in bash, as the Tab key does."""
    ours = shell("completion", "bash", key=None).out
    tab = """
        COMP_WORDS=("$@") COMP_CWORD=$(($# - 1)) COMP_WORDBREAKS=:
        _kling_batch_words kling-batch
        printf '%s\\n' "${COMPREPLY[@]}"
    """
    return said(shell, ["bash", "--norc", "-c", ours + tab, "bash", "kling-batch", *words])


def said(shell: Any, command: list[str]) -> list[str]:
    """Return the lines that a shell's own machinery says; nothing may be on stderr."""
    environment = shell.env(None, {"LANG": "C.UTF-8", "HOME": str(shell.folder)})
    environment["PATH"] = f"{shell.command[0].rpartition('/')[0]}:/usr/bin:/bin"
    done = subprocess.run(
        command, cwd=shell.folder, env=environment, capture_output=True, text=True, check=False
    )
    assert done.stderr == ""
    return list(filter(None, done.stdout.splitlines()))


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


def test_patterns_with_a_colon_are_completed(shell: Any) -> None:
    """Bash has parted them into three words, and types what comes behind the colon."""
    shell.manifest(JOBS)
    args = ("run", "night.yaml", "--select")
    assert completed(shell, *args, "tag") == ["tag:blue"]
    assert completed(shell, *args, "tag", ":", "") == ["blue"]
    assert completed(shell, *args, "state", ":", "f") == ["failed"]


def test_id_that_would_part_the_line_is_quoted(shell: Any) -> None:
    shell.manifest(JOBS)
    (typed,) = completed(shell, "run", "night.yaml", "--select", "it")
    assert typed == r"it\'s\ #1\ \$x"


def test_jobs_of_a_folder_are_completed(shell: Any) -> None:
    """For the commands that name an output folder and a job."""
    assert shell("run", shell.manifest(JOBS), "--sandbox").code == 0
    for command in ("restore", "adopt", "forget"):
        assert completed(shell, command, "outputs/night.sandbox", "sk") == ["sky/day", "sky/night"]
    assert completed(shell, "report", "") == ["outputs/night.sandbox"]
    assert completed(shell, "restore", "nowhere", "sk") == []


@pytest.mark.skipif(not shutil.which("fish"), reason="needs fish")
def test_fish_completes_as_the_tab_key_does(shell: Any) -> None:
    shell.manifest(JOBS)
    (shell.folder / "key.env").write_text("")

    def typed(line: str) -> list[str]:
        script = f"kling-batch completion fish | source; complete -C {line!r}"
        return [found.partition("\t")[0] for found in said(shell, ["fish", "-N", "-c", script])]

    assert typed("kling-batch pl") == ["plan"]
    assert typed("kling-batch run night.yaml --select sk") == ["sky/day", "sky/night"]
    assert typed("kling-batch run night.yaml --select state:f") == ["state:failed"]
    assert "key.env" in typed("kling-batch run night.yaml --env-file k")


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


def test_shell_that_asks_is_told_of_success(shell: Any) -> None:
    """What looks at the exit code (a script under `set -e`, bash's own loader) goes on."""
    question = {
        "_KLING_BATCH_COMPLETE": "bash_complete",
        "COMP_WORDS": "kling-batch pl",
        "COMP_CWORD": "1",
    }
    environment = shell.env(None, question)
    done = subprocess.run(
        shell.command,
        cwd=shell.folder,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "plain,plan\n", "")


def test_completion_of_another_shell_is_refused(shell: Any) -> None:
    assert shell("completion", "tcsh", key=None).code == 2
