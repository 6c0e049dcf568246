"""A process among others: full disks, locks of other programs, limits of the system, closed streams."""

from __future__ import annotations

import json
import os
import subprocess
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest


def until(what: Any, timeout_s: float = 15.0) -> None:
    """Wait for something to become true."""
    give_up_at = time.monotonic() + timeout_s
    while not what():
        assert time.monotonic() < give_up_at, "waited in vain"
        time.sleep(0.01)


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
        out, err = process.communicate(timeout=20)
    assert process.returncode == 1
    assert b"no space left" in err
    assert b"Traceback" not in err
    (rescue,) = shell.folder.glob("*rescue*")
    rescued = [json.loads(line) for line in rescue.read_text("utf-8").splitlines()]
    assert rescued
    assert all(line["task_id"] in err.decode() for line in rescued)
    (small_disk / "filler").unlink()
    said = shell(*args)
    assert (said.code, box.stats.created) == (0, 20)
    assert not list(shell.folder.rglob("*rescue*"))


@pytest.mark.parametrize(
    ("umask", "file", "folder"), [(0o002, 0o664, 0o775), (0o077, 0o600, 0o700)]
)
def test_files_follow_the_umask(shell: Any, umask: int, file: int, folder: int) -> None:
    """A folder shared by a group is written by all of it, a private one read by nobody else."""
    shell.umask = umask
    with shell.running("run", shell.manifest(), "--sandbox") as process:
        until(lambda: list(shell.folder.rglob("*.part")) or process.poll() is not None)
        modes = {p: p.stat().st_mode & 0o777 for p in shell.folder.rglob("*") if p.is_file()}
        process.communicate(timeout=20)
    root = shell.folder / "outputs"
    for path in (root, *root.rglob("*")):
        modes[path] = path.stat().st_mode & 0o777
    modes.pop(shell.folder / "night.yaml", None)
    for path, mode in modes.items():
        wanted = folder if path.is_dir() else file
        assert mode == wanted, f"{path}: {mode:o}"


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
        timeout=30,
        check=False,
    )


@pytest.mark.parametrize(
    ("redirection", "extra"),
    [(closed, ()) for closed in CLOSED]
    + [(full, ("--json", "--verbose")) for full in (*FULL, ">&-", "2>&-")],
)
def test_closed_or_full_streams_keep_the_exit_code(
    shell: Any, sandbox: Any, redirection: str, extra: tuple[str, ...]
) -> None:
    """The videos are made and nothing printed gets into the state; so for plan, status and usage."""
    jobs = [{"id": "good", "prompt": "fox"}, {"id": "bad", "prompt": "sandbox:moderation"}]
    manifest = shell.manifest(jobs)
    json_only = extra[:1]
    wanted = [
        (1, ("run", manifest, "--base-url", sandbox().base_url, *extra)),
        (0, ("plan", manifest, *json_only)),
        (0, ("status", "outputs/night", *json_only)),
        (2, ("plan", "missing.yaml", *json_only)),
    ]
    for code, args in wanted:
        done = redirected(shell, redirection, *args)
        assert done.returncode == code, args
        assert "Traceback" not in done.stdout + done.stderr
        assert "bug" not in done.stderr
    assert (shell.folder / "outputs/night/videos/good.mp4").stat().st_size > 1000
    assert shell("status", "outputs/night").code == 0


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
