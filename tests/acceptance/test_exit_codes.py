"""Every exit code of the contract, from the outside."""

from __future__ import annotations

import json
import re
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from patience import PATIENCE_S, until

from batch.cli.problems import problems_of
from batch.errors import BatchError, ExitCode
from batch.output import lock


def test_0_when_made_and_when_up_to_date(shell: Any, sandbox: Any) -> None:
    """The second night sends nothing."""
    box = sandbox()
    manifest = shell.manifest()
    said = shell("run", manifest, "--base-url", box.base_url)
    assert said.code == 0
    assert "2 made" in said.out
    assert "job-0" in said.err
    assert sorted(p.name for p in (shell.folder / "outputs/night/videos").iterdir()) == [
        *("job-0.mp4", "job-1.mp4"),
    ]
    requests = box.stats.counts()
    said = shell("run", manifest, "--base-url", box.base_url)
    assert said.code == 0
    assert "2 unchanged" in said.out
    assert box.stats.counts() == requests


def test_1_when_some_jobs_failed(shell: Any, sandbox: Any) -> None:
    """The others are made; the failure is told with its reason."""
    jobs = [{"id": "good", "prompt": "fox"}, {"id": "bad", "prompt": "sandbox:moderation"}]
    said = shell("run", shell.manifest(jobs), "--base-url", sandbox().base_url)
    assert said.code == 1
    assert re.search(r"bad: failed \(moderation\).*risk control", said.out)


@pytest.mark.parametrize(
    "args",
    [
        (),
        ("run",),
        ("run", "missing.yaml"),
        ("run", "night.yaml", "--no-such-option"),
        ("run", "night.yaml", "--submit-rate", "banana"),
        ("run", "night.yaml", "--max-in-flight", "0"),
        ("run", "night.yaml", "--budget", "-3"),
        ("run", "night.yaml", "--deadline", "soon"),
        ("run", "night.yaml", "--base-url", "http://nowhere.invalid"),
        ("run", "night.yaml", "--base-url", "ftp://nowhere.invalid"),
        ("run", "night.yaml", "--base-url", ""),
        ("run", "night.yaml", "--base-url", "https://nowhere.invalid/v1"),
        ("run", "night.yaml", "--base-url", "https://user:secret@nowhere.invalid"),
        ("run", "night.yaml", "--log-format", "xml"),
        ("run", "night.yaml", "--api-key", "sk-something"),
        ("run", "."),
        ("plan", "missing.yaml"),
        ("status", "nowhere"),
        ("status",),
        ("sandbox", "--fault", "submit:nonsense"),
    ],
    ids=" ".join,
)
def test_2_when_usage_is_wrong(shell: Any, args: tuple[str, ...]) -> None:
    """A sentence on stderr, nothing on stdout, nothing written."""
    shell.manifest()
    before = shell.files()
    said = shell(*args)
    if args:
        assert said.code == 2
        assert said.out == ""
        assert said.err.strip()
    else:
        assert said.code in {0, 2}  # the help, as click has it
    assert shell.files() == before


@pytest.mark.parametrize(
    "args",
    [
        *(("--select", "a*"), ("--exclude", "a*"), ("--force",), ("--retry-failed",)),
        *(("--deadline", "5h"), ("--budget", "3"), ("--resubmit-unconfirmed",), ("--detach",)),
        *(("--plan", "saved.json"), ("--no-move",), ("--dry-run",)),
    ],
    ids=" ".join,
)
def test_2_when_join_would_ignore_an_option(shell: Any, args: tuple[str, ...]) -> None:
    """The run that is followed was planned before, with what it was given then."""
    said = shell("run", shell.manifest(), "--join", "--json", *args)
    assert (said.code, said.json["exit_code"]) == (2, 2)
    assert f"leave out {args[0]}, or --join" in said.err


def test_2_without_a_run_to_join(shell: Any) -> None:
    """A variable, and an option that says where the run is, ask for nothing of their own."""
    where = ("--output-dir", "outputs/night", "--base-url", "http://127.0.0.1:9", "--new")
    said = shell("run", shell.manifest(), "--join", *where, KLING_BATCH_SELECT="a*")
    assert (said.code, "has no run of a fleet to join" in said.err) == (2, True)


def test_2_when_env_file_is_missing(shell: Any) -> None:
    """The environment has no key, and the named file is not replaced by anything."""
    said = shell("run", shell.manifest(), "--env-file", "missing.env", key=None)
    assert said.code == 2
    assert "missing.env" in said.err


def test_2_without_key_touches_nothing(shell: Any, sandbox: Any) -> None:
    """The message names the variable and --sandbox."""
    box = sandbox()
    manifest = shell.manifest()
    before = shell.files()
    said = shell("run", manifest, "--base-url", box.base_url, key=None)
    assert said.code == 2
    assert "COMETAPI_KEY" in said.err
    assert "--sandbox" in said.err
    assert shell.files() == before
    assert box.stats.posts == 0


def test_3_when_budget_is_used_up(shell: Any, sandbox: Any) -> None:
    """Run again to go on."""
    box = sandbox()
    manifest = shell.manifest(3, prices={"kling-v2-6": 1})
    args = ("run", manifest, "--base-url", box.base_url, "--budget", "2")
    said = shell(*args)
    assert said.code == 3
    assert box.stats.created == 2
    assert "budget" in said.out
    assert shell(*args).code == 0
    assert box.stats.created == 3


def test_3_when_deadline_is_reached(shell: Any, sandbox: Any) -> None:
    """In time, with the tasks left open."""
    box = sandbox(median_s=600)
    said = shell("run", shell.manifest(), "--base-url", box.base_url, "--deadline", "300ms")
    assert said.code == 3
    assert "deadline" in said.out


def test_4_when_account_is_refused(shell: Any, sandbox: Any) -> None:
    """A wrong key: no rows, and the message names the account."""
    box = sandbox(api_key="sk-another")
    said = shell("run", shell.manifest(), "--base-url", box.base_url)
    assert said.code == 4
    assert "account" in said.out + said.err
    assert not (shell.folder / "outputs/night/results.jsonl").exists()


def test_70_when_bug_is_ours(shell: Any) -> None:
    """One sentence and a report file, which holds the traceback and not the key."""
    code = (
        "import sys, batch.cli.main, batch.cli.running as run\n"
        "def broken(*args):\n"
        "    raise ValueError('sk-verysecretkey0123456789 https://x.test/a.mp4?ksSecret=abc')\n"
        "run.settle = broken\n"
        "sys.exit(batch.cli.main.main(['run', 'night.yaml', '--json']))\n"
    )
    shell.manifest()
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=shell.folder,
        env=shell.env("sk-verysecretkey0123456789", {"TMPDIR": str(shell.folder)}),
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 70
    assert json.loads(done.stdout)["exit_code"] == 70
    assert "Traceback" not in done.stderr
    assert "verysecret" not in done.stdout + done.stderr
    report = Path(re.search(r"(\S+kling-batch-bug-\S+\.txt)", done.stderr)[1])
    text = report.read_text("utf-8")
    assert "Traceback" in text
    assert "verysecret" not in text
    assert "ksSecret" not in text


def test_75_when_another_run_holds_folder(shell: Any, sandbox: Any) -> None:
    """With the holder's pid, and nothing sent."""
    box = sandbox(median_s=60)
    manifest = shell.manifest()
    args = ("run", manifest, "--base-url", box.base_url)
    with shell.running(*args) as process:
        until(lambda: box.stats.created == 2)
        said = shell(*args)
        assert said.code == 75
        assert str(process.pid) in said.err
        assert box.stats.posts == 2
        assert shell("plan", manifest).code == 0, "a plan needs no lock"


def test_75_when_another_program_holds_lock(shell: Any) -> None:
    """The lock is the operating system's."""
    with lock.hold(shell.folder / "outputs/night.sandbox/.kling-batch/lock"):
        assert shell("run", shell.manifest(), "--sandbox").code == 75


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_130_and_143_when_interrupted(shell: Any, sandbox: Any, number: Any, code: int) -> None:
    """The summary is still one JSON object on stdout."""
    box = sandbox(median_s=600)
    with shell.running("run", shell.manifest(), "--base-url", box.base_url, "--json") as process:
        # Both are open on disk, not only at the provider.
        until(lambda: box.stats.lookups + box.stats.queries >= 1 and box.stats.created == 2)
        process.send_signal(number)
        out, _err = process.communicate(timeout=PATIENCE_S)
        assert process.returncode == code
        summary = json.loads(out)
        assert summary["exit_code"] == code
        assert summary["left"] == 2


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_130_and_143_for_late_second_signal(
    shell: Any, sandbox: Any, number: Any, code: int
) -> None:
    """The second signal comes after the summary, while the process ends."""
    box = sandbox(median_s=600)
    with shell.running("run", shell.manifest(), "--base-url", box.base_url, "--json") as process:
        until(lambda: box.stats.created == 2)
        process.send_signal(number)
        assert json.loads(process.stdout.readline())["exit_code"] == code
        process.send_signal(number)
        assert process.wait(PATIENCE_S) == code


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
@pytest.mark.parametrize("printed", ["", '{"exit_code": 0}'])
@pytest.mark.parametrize("args", [(), ("--json",)])
def test_130_and_143_before_run_begins(
    number: int, code: int, printed: str, args: tuple[str, ...]
) -> None:
    """While the manifest is read, no event loop handles the signal: no traceback, one JSON object."""
    script = (
        "import os, time; from batch import __main__; from batch.cli import main as cli;"
        f" cli.main = lambda: (print({printed!r}, end=''), os.kill(os.getpid(), {int(number)}),"
        " time.sleep(999)); __main__.main()"
    )
    done = subprocess.run(
        [sys.executable, "-c", script, *args],
        capture_output=True,
        check=False,
        timeout=PATIENCE_S,
        text=True,
    )
    assert (done.returncode, done.stderr) == (code, "")
    if not args or printed:
        assert done.stdout == printed
    else:
        told = json.loads(done.stdout)
        error = BatchError(told["problems"][0]["message"])
        assert told == problems_of(error, ExitCode(code))


def test_closed_stderr_keeps_exit_code(shell: Any, sandbox: Any) -> None:
    """The videos are made even if the reader of the log is gone."""
    args = ("run", shell.manifest(), "--base-url", sandbox().base_url)
    with shell.running(*args) as process:
        process.stderr.close()
        process.stderr = None
        process.stdout.read()
        assert process.wait(PATIENCE_S) == 0


@pytest.mark.parametrize("place", ["a file", "below a file"])
def test_unusable_output_folder_is_reported(shell: Any, place: str) -> None:
    """No traceback, no bug report: a sentence."""
    (shell.folder / "taken").write_text("I am a file", "utf-8")
    target = "taken" if place == "a file" else "taken/deeper"
    said = shell("run", shell.manifest(), "--sandbox", "--output-dir", target)
    assert said.code in {1, 2}
    assert "taken" in said.err
    assert "bug" not in said.err


def test_damaged_state_is_reported_and_sends_nothing(shell: Any, sandbox: Any) -> None:
    """Exit code 1: nothing was done, and the sentence says what to do."""
    box = sandbox()
    args = ("run", shell.manifest(), "--base-url", box.base_url)
    assert shell(*args).code == 0
    (shell.folder / "outputs/night/.kling-batch/state.db").write_bytes(b"rubbish" * 999)
    posts = box.stats.posts
    said = shell(*args)
    assert said.code == 1
    assert "damaged" in said.err
    assert box.stats.posts == posts
    assert shell("status", "outputs/night").code == 1
