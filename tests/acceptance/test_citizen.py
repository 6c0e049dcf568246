"""A process among others: full disks, locks of other programs, limits of the system, closed streams."""

from __future__ import annotations

import json
import os
import re
import shutil
import stat
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from patience import PATIENCE_S, until


@pytest.fixture
def small_disk(shell: Any) -> Iterator[Path]:
    """Mount a disk of two megabytes where the output folder will be."""
    folder = Path(shell.folder, "outputs")
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=2m", "tmpfs", str(folder)]
    if subprocess.run(mount, capture_output=True, check=False).returncode:
        pytest.skip("no disk can be mounted here")
    yield folder
    subprocess.run(["umount", "-l", str(folder)], check=True)


def fill(folder: Path) -> None:
    """Write until the disk is full."""
    with (folder / "filler").open("wb", buffering=0) as file:
        for size in (65536, 4096, 1):
            with suppress(OSError):
                while True:
                    file.write(b"x" * size)


def test_full_disk_after_post_pays_once(shell: Any, sandbox: Any, small_disk: Path) -> None:
    """Twenty jobs, twenty tasks over both runs; what cannot be recorded is in a rescue file."""
    box = sandbox("submit:slow:seconds=1")
    manifest = shell.manifest(20, limits={"max_in_flight": 20})
    args = ("run", manifest, "--base-url", box.base_url)
    with shell.running(*args) as process:
        until(lambda: box.stats.created >= 20)
        fill(small_disk)
        out, err = process.communicate(timeout=PATIENCE_S)
    assert process.returncode == 1
    assert b"no space left" in err
    assert b"Traceback" not in err
    (rescue,) = shell.folder.glob("*rescue*")
    rescued = [json.loads(line) for line in rescue.read_text("utf-8").splitlines()]
    assert rescued
    assert all(line["task_id"] in err.decode() for line in rescued)
    told = shell("status", key=None).out
    assert f"{rescue} keeps {len(rescued)} paid task" in told
    assert "being" not in told, "nothing is submitted or looked up without a run"
    (small_disk / "filler").unlink()
    said = shell(*args)
    assert (said.code, box.stats.created) == (0, 20)
    assert "rescue" not in shell("status", key=None).out
    assert not list(shell.folder.rglob("*rescue*"))


def test_full_disk_keeps_the_former_page(shell: Any, sandbox: Any, small_disk: Path) -> None:
    """And a run on it sends nothing."""
    box = sandbox()
    args = ("run", shell.manifest(2), "--base-url", box.base_url)
    assert shell(*args).code == 0
    page = small_disk / "night/report.html"
    before = page.read_bytes()
    fill(small_disk)
    said = shell("report", "outputs/night")
    assert (said.code, "No space left" in said.err, "-o FILE" in said.err) == (1, True, True)
    assert page.read_bytes() == before
    said = shell(*args[:1], shell.manifest(5), *args[2:])
    assert (said.code, "make room" in said.err, box.stats.created) == (1, True, 2)
    assert shell("report", "outputs/night", "-o", "page.html").code == 0


def test_read_only_disk_sends_nothing(shell: Any, sandbox: Any, small_disk: Path) -> None:
    """What only reads goes on: plan, status, ledger, and a page elsewhere."""
    box = sandbox()
    args = ("--base-url", box.base_url)
    assert shell("run", shell.manifest(1), *args).code == 0
    subprocess.run(["mount", "-o", "remount,ro", str(small_disk)], check=True)
    said = shell("run", shell.manifest(2), *args)
    assert (said.code, "Read-only file system" in said.err, box.stats.posts) == (1, True, 1)
    assert "1 new" in shell("plan", shell.manifest(2)).out
    assert shell("ledger").out.endswith("total: 1 task, about $0.21\n")
    assert "1 succeeded" in shell("status").out
    assert shell("report", "outputs/night").code == 1
    assert shell("report", "outputs/night", "-o", "page.html").code == 0


@pytest.mark.parametrize(
    ("umask", "file", "folder"), [(0o002, 0o664, 0o775), (0o077, 0o600, 0o700)]
)
def test_files_follow_the_umask(
    shell: Any, sandbox: Any, umask: int, file: int, folder: int
) -> None:
    """A folder shared by a group is written by all of it, a private one read by nobody else."""
    shell.umask = umask
    box = sandbox("download:stall:at=0.9,per_task=1", video_bytes=3_000_000)
    args = ("run", shell.manifest(1, limits={"stall_timeout": "1h"}), "--base-url", box.base_url)
    with shell.running(*args) as process:
        until(lambda: list(shell.folder.rglob("parts/*.part")))
        assert other_modes(shell.folder / "outputs", file, folder) == {}
    with shell.running(*args) as process:
        assert process.wait(PATIENCE_S) == 0
    assert other_modes(shell.folder / "outputs", file, folder) == {}


def other_modes(root: Path, file: int, folder: int) -> dict[str, str]:
    """Return what has neither the mode of a *file* nor that of a *folder*."""
    found = {path: path.stat().st_mode for path in (root, *root.rglob("*"))}
    return {
        str(path): f"{mode:o}"
        for path, mode in found.items()
        if stat.S_IMODE(mode) != (folder if stat.S_ISDIR(mode) else file)
    }


CLOSED = [">&-", "2>&-", "<&-", ">&- 2>&-", "<&- >&-", "<&- >&- 2>&-"]
FULL = [">/dev/full", "2>/dev/full", ">/dev/full 2>/dev/full", "<&- >/dev/full 2>&-"]


def redirected(shell: Any, redirection: str, *args: Any) -> subprocess.CompletedProcess[str]:
    """Run the command with its standard streams as a shell redirects them."""
    command = ["sh", "-c", f'exec "$@" {redirection}', "sh", *shell.command, *map(str, args)]
    return subprocess.run(
        command,
        cwd=shell.folder,
        env=shell.env("sk-verysecretkey0123456789", {}),
        capture_output=True,
        text=True,
        timeout=PATIENCE_S,
        check=False,
    )


@pytest.mark.parametrize("redirection", [*CLOSED, *FULL])
def test_closed_or_full_streams_keep_a_runs_exit_code(
    shell: Any, sandbox: Any, redirection: str
) -> None:
    """The videos are made and nothing printed gets into the state."""
    jobs = [{"id": "good", "prompt": "fox"}, {"id": "bad", "prompt": "sandbox:moderation"}]
    args = ("run", shell.manifest(jobs), "--base-url", sandbox().base_url, "--new")
    flags = () if "&-" in redirection else ("--json", "--verbose")
    check_silent(redirected(shell, redirection, *args, *flags), 1)
    assert (shell.folder / "outputs/night/videos/good.mp4").stat().st_size > 1000
    assert shell("status", "outputs/night").code == 0


@pytest.mark.parametrize("redirection", ["<&- >&- 2>&-", ">/dev/full 2>/dev/full"])
@pytest.mark.parametrize("flags", [(), ("--json",)], ids=["text", "json"])
def test_closed_or_full_streams_keep_every_exit_code(
    shell: Any, sandbox: Any, redirection: str, flags: tuple[str, ...]
) -> None:
    manifest = shell.manifest(1)
    assert shell("run", manifest, "--base-url", sandbox().base_url).code == 0
    wanted = [(0, "plan", manifest), (0, "status", "outputs/night"), (2, "plan", "missing.yaml")]
    for code, *args in wanted:
        check_silent(redirected(shell, redirection, *args, *flags), code)


def check_silent(done: subprocess.CompletedProcess[str], code: int) -> None:
    assert done.returncode == code, done.args
    assert "Traceback" not in done.stdout + done.stderr
    assert "bug" not in done.stderr


def test_full_stdout_is_told_on_stderr(shell: Any) -> None:
    done = redirected(shell, ">/dev/full", "schema")
    assert (done.returncode, done.stdout) == (0, "")
    assert done.stderr == "kling-batch: stdout cannot be written (No space left on device)\n"


def dangling(root: Path) -> None:
    """Put a link to a disk that is away in the place of videos/."""
    (root / "videos").symlink_to("/mnt/not-there/videos")


def a_file(root: Path) -> None:
    """Put a file in the place of videos/."""
    (root / "videos").write_text("mine", "utf-8")


def a_file_below(root: Path) -> None:
    """Put a file in the place of a job's own folder."""
    (root / "videos").mkdir()
    (root / "videos/deep").write_text("mine", "utf-8")


def parts(root: Path) -> None:
    """Put a file in the place of the folder of part files."""
    (root / ".kling-batch").mkdir()
    (root / ".kling-batch/parts").write_text("mine", "utf-8")


@pytest.mark.parametrize(
    ("spoil", "named"),
    [
        (dangling, "videos is a link to /mnt/not-there/videos"),
        (a_file, "videos is not a folder"),
        (a_file_below, "videos/deep is not a folder"),
        (parts, "parts is not a folder"),
    ],
)
def test_unwritable_videos_send_nothing(shell: Any, sandbox: Any, spoil: Any, named: str) -> None:
    """Exit code 1 naming the folder, before anything is paid for."""
    box = sandbox()
    root = shell.folder / "outputs/night"
    root.mkdir(parents=True)
    spoil(root)
    manifest = shell.manifest([{"id": "deep/er/fox", "prompt": "fox"}])
    said = shell("run", manifest, "--base-url", box.base_url)
    assert (said.code, said.out) == (1, "")
    assert named in said.err
    assert "Nothing was sent" in said.err
    assert box.stats.posts == 0


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() != 0, reason="needs root")
def test_read_only_videos_send_nothing_until_mended(shell: Any, sandbox: Any) -> None:
    """Nor does a quiet night try anything: what is made needs no room."""
    box = sandbox()
    args = ("--base-url", box.base_url)
    assert shell("run", shell.manifest(1), *args).code == 0
    videos = str(shell.folder / "outputs/night/videos")
    bind = ["mount", "--bind", videos, videos]
    if subprocess.run(bind, capture_output=True, check=False).returncode:
        pytest.skip("no disk can be mounted here")
    try:
        subprocess.run(["mount", "-o", "remount,ro,bind", videos], check=True)
        assert shell("run", shell.manifest(1), *args).code == 0
        said = shell("run", shell.manifest(2), *args)
        assert (said.code, box.stats.posts) == (1, 1)
        assert (
            f"{Path(videos)} cannot be written (Read-only file system)".split("/here/")[1]
            in said.err
        )
    finally:
        subprocess.run(["umount", videos], check=True)
    assert shell("run", shell.manifest(2), *args).code == 0
    assert box.stats.posts == 2


NOBODY = 20_000 + os.getpid() % 40_000  # has no other processes, also of a test beside this one
AS_NOBODY = ["setpriv", f"--reuid={NOBODY}", "--clear-groups", "--inh-caps", "+dac_override"]
AS_NOBODY += ["--ambient-caps", "+dac_override", "prlimit"]
IS_LINUX_ROOT = shutil.which("setpriv") and shutil.which("prlimit") and os.geteuid() == 0


@pytest.mark.parametrize("args", [("run", "m.yaml", "--sandbox"), ("status",), ("ledger",)])
def test_deleted_working_directory_is_told(shell: Any, args: tuple[str, ...]) -> None:
    """Where every path begins there is nothing: a sentence, and no report of a bug."""
    gone = shell.folder / "gone"
    gone.mkdir()
    done = subprocess.run(
        ["sh", "-c", 'rmdir "$PWD"; exec "$@"', "sh", *shell.command, *args],
        cwd=gone,
        env=shell.env("sk-verysecretkey0123456789", {}),
        capture_output=True,
        text=True,
        timeout=PATIENCE_S,
        check=False,
    )
    assert (done.returncode, done.stdout) == (2, "")
    assert re.fullmatch(r"kling-batch: the working directory is not there .* sent\n", done.stderr)


def test_working_directory_deleted_meanwhile_ends_with_a_sentence(shell: Any, sandbox: Any) -> None:
    """The state is not found any more; whom to tell of it is asked for all the same."""
    box = sandbox("submit:slow:seconds=1")
    here, away = shell.folder / "here", shell.folder / "away"
    here.mkdir()
    shell.folder = here
    manifest = Path(shell.manifest(2)).name
    with shell.running("run", manifest, "--base-url", box.base_url, "--new") as process:
        until(lambda: box.stats.created >= 1)
        here.rename(away)
        shutil.rmtree(away)
        _, err = process.communicate(timeout=PATIENCE_S)
    assert process.returncode == 1, err
    assert b"Traceback" not in err
    assert b"bug" not in err


@pytest.fixture
def open_shell(shell: Any) -> Iterator[Any]:
    """Return a shell in a folder that every user can reach; pytest's own are private."""
    with tempfile.TemporaryDirectory(dir=tempfile.gettempdir()) as folder:
        Path(folder).chmod(0o777)
        shell.folder = Path(folder)
        yield shell


def limited(shell: Any, limit: str, *args: Any) -> subprocess.CompletedProcess[str]:
    """Run the command under a limit of the system, as a user without other processes."""
    prefix = AS_NOBODY if limit.startswith("--nproc") else ["prlimit"]
    return subprocess.run(
        [*prefix, limit, *shell.command, *map(str, args)],
        cwd=shell.folder,
        env=shell.env("sk-verysecretkey0123456789", {}),
        capture_output=True,
        text=True,
        timeout=PATIENCE_S,
        check=False,
    )


@pytest.mark.skipif(not IS_LINUX_ROOT, reason="needs root and util-linux")
@pytest.mark.parametrize(
    ("limit", "named"),
    [
        ("--nproc=1", "ulimit -u"),
        ("--nproc=2", "ulimit -u"),
        ("--nproc=3", "ulimit -u"),
        ("--nofile=8", "(ulimit -n)|(Too many open files)"),
        ("--nofile=10", "(ulimit -n)|(Too many open files)"),
        ("--nofile=14", "ulimit -n"),
        ("--nofile=24", "ulimit -n"),
    ],
)
def test_no_thread_or_descriptor_ends_with_a_sentence(
    open_shell: Any, sandbox: Any, limit: str, named: str
) -> None:
    """The lock is free afterwards, and the next night pays once for each job."""
    shell = open_shell
    box = sandbox()
    args = ("run", shell.manifest(3), "--base-url", box.base_url, "--new")
    done = limited(shell, limit, *args)
    assert (done.returncode, done.stdout) == (1, ""), done.stderr
    assert re.search(named, done.stderr)
    assert len(done.stderr.splitlines()) == 1
    assert box.stats.posts == 0
    assert shell(*args).code == 0
    assert box.stats.created == 3


@pytest.mark.skipif(not IS_LINUX_ROOT, reason="needs root and util-linux")
@pytest.mark.parametrize("megabytes", [60, 70, 80])
def test_no_memory_is_no_bug(shell: Any, sandbox: Any, megabytes: int) -> None:
    """Wherever it runs out (a thread needs some, too), that is told, and no job is paid for twice."""
    box = sandbox()
    args = ("run", shell.manifest(3), "--base-url", box.base_url, "--new")
    done = limited(shell, f"--as={megabytes}000000", *args)
    assert (done.returncode, done.stdout) == (1, ""), done.stderr
    assert re.search("ulimit (-v|-u or -v)", done.stderr.splitlines()[-1])
    assert shell(*args).code == 0
    assert box.stats.created == 3


@pytest.mark.skipif(not IS_LINUX_ROOT, reason="needs root and util-linux")
@pytest.mark.parametrize("limit", ["--nproc=4", "--nofile=30"])
def test_few_threads_or_descriptors_are_enough(open_shell: Any, sandbox: Any, limit: str) -> None:
    """Twelve jobs at once are wanted; as many as there is room for are made at a time."""
    shell = open_shell
    box = sandbox()
    manifest = shell.manifest(12, limits={"max_in_flight": 12, "max_downloads": 12})
    done = limited(shell, limit, "run", manifest, "--base-url", box.base_url, "--new")
    assert (done.returncode, box.stats.created) == (0, 12), done.stderr
    assert ("few descriptors are left" in done.stderr) == ("nofile" in limit)


@pytest.mark.skipif(not hasattr(os, "openpty"), reason="needs a pseudo terminal")
@pytest.mark.parametrize(("term", "has_bar"), [("xterm", True), ("dumb", False)])
def test_dumb_terminal_gets_lines(shell: Any, sandbox: Any, term: str, has_bar: bool) -> None:
    """A terminal that cannot move its cursor would show nothing of a bar."""
    args = ("run", shell.manifest(1), "--base-url", sandbox().base_url, "--new")
    args += ("--progress", "always")
    terminal, end = os.openpty()
    with os.fdopen(terminal, "rb", buffering=0) as screen:
        process = subprocess.Popen(
            [*shell.command, *map(str, args)],
            cwd=shell.folder,
            env=shell.env("sk-verysecretkey0123456789", {"TERM": term}),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=end,
        )
        os.close(end)
        shown = b""
        with suppress(OSError):
            while piece := screen.read(4096):
                shown += piece
        assert process.wait(PATIENCE_S) == 0
    assert (b"\x1b[" in shown) == has_bar
    assert (b"job-0: made" in shown) != has_bar


def test_progress_always_into_a_pipe_prints_lines(shell: Any, sandbox: Any) -> None:
    args = ("run", shell.manifest(1), "--base-url", sandbox().base_url, "--progress", "always")
    said = shell(*args)
    assert said.code == 0
    assert "job-0: made" in said.err
