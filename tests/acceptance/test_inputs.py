"""What people put into a manifest, through the installed command; tasks are counted where paid for."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

ASCII_FILES = {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
UTF_8_FILES = {"LC_ALL": "C.UTF-8"}


@pytest.fixture
def night(shell: Any, sandbox: Any) -> Callable[..., Any]:
    """Give a function that runs the jobs of a file, and counts the tasks made so far."""
    box = sandbox()
    manifest = shell.manifest([{"from": "rows.csv"}])

    def run(rows: str | bytes, *args: Any, **env: str) -> tuple[Any, int]:
        data = rows if isinstance(rows, bytes) else rows.encode()
        (shell.folder / "rows.csv").write_bytes(data)
        said = shell("run", manifest, "--base-url", box.base_url, "--json", *args, **env)
        return said, box.stats.created

    return run


def test_inserted_row_pays_for_itself_alone(night: Any) -> None:
    harbour, mill, tram = "A harbour at dawn\n", "A mill by a stream\n", "A tram in snow\n"
    said, created = night(f"prompt\n{harbour}{mill}{tram}")
    assert (said.code, created) == (0, 3)

    said, created = night(f"prompt\nA kite over dunes\n{tram}{harbour}{mill}")
    assert (said.code, created) == (0, 4)
    assert said.json["planned"] == {"new": 1, "unchanged": 3}


def test_rows_moved_to_another_file_pay_nothing(night: Any, shell: Any) -> None:
    assert night("id,prompt\n,A fox\n,An owl\n")[1] == 2
    (shell.folder / "more.txt").write_text("An owl\n")
    shell.manifest([{"from": "rows.csv"}, {"from": "more.txt"}])

    said, created = night("prompt\nA fox\n")
    assert (said.json["planned"], created) == ({"unchanged": 2}, 2)


@pytest.mark.parametrize(
    ("rows", "place"),
    [
        ("id,prompt\na,A fox\nb,#REF!\n", "rows.csv:3:3: job 'b': prompt is '#REF!'"),
        ("id,prompt\na,A fox\nid,prompt\nb,An owl\n", "rows.csv:3:1: the header"),
        ("id,prompt,\na,A fox,note\n", "rows.csv:1:1: column 3 has no name"),
        ("prompt\nA fox\nA fox\n", "rows.csv:2 asks for the same"),
    ],
)
def test_row_that_means_nothing_is_not_paid_for(night: Any, rows: str, place: str) -> None:
    said, created = night(rows)

    assert (said.code, created) == (2, 0)
    assert place in said.err


def test_output_folder_in_the_home_is_found(shell: Any) -> None:
    home = shell.folder / "home"
    home.mkdir()
    manifest = shell.manifest(1, output_dir="~/loops/${KIND}")

    said = shell("run", manifest, "--sandbox", HOME=str(home), KIND="night", key=None)
    assert said.code == 0
    assert (home / "loops/night.sandbox/videos/job-0.mp4").exists()
    assert not [path for path in shell.folder.rglob("*") if path.name in {"~", "${KIND}"}]

    said = shell("run", manifest, "--sandbox", HOME=str(home), key=None)
    assert (said.code, "$KIND, but this variable is not set" in said.err) == (2, True)


@pytest.mark.parametrize(
    ("name", "said"),
    [
        (
            "nope.yaml",
            "kling-batch: nope.yaml: there is no such file (the working directory is {})\n",
        ),
        ("folder", "kling-batch: folder: it is a folder, not a file\n"),
    ],
)
def test_manifest_that_is_no_file_is_told_plainly(shell: Any, name: str, said: str) -> None:
    (shell.folder / "folder").mkdir()

    for command in ("run", "plan"):
        found = shell(command, name)
        assert (found.code, found.err, found.out) == (2, said.format(shell.folder), "")


@pytest.mark.parametrize(
    "rows",
    ["id,prompt\nf\u00fcchse,A fox\n", "prompt\n\u72d0\u72f8\n", "id,prompt\n\u72d0/a,A fox\n"],
)
def test_name_that_this_locale_cannot_write_is_refused(night: Any, rows: str) -> None:
    said, created = night(rows, **ASCII_FILES)
    assert (said.code, created) == (2, 0)
    assert "file names of this locale (ascii) do not hold as UTF-8" in said.err
    assert "LC_ALL=C.UTF-8" in said.err

    said, created = night(rows, **UTF_8_FILES)
    assert (said.code, created) == (0, 1)


def test_ascii_names_are_the_same_in_every_locale(night: Any, shell: Any) -> None:
    rows = "prompt\nM\u00fcller at dawn\n"
    said, created = night(rows, **ASCII_FILES)
    assert (said.code, created) == (0, 1)
    (video,) = (shell.folder / "outputs/night/videos").iterdir()
    assert video.name.startswith("muller-at-dawn-")

    said, created = night(rows, **UTF_8_FILES)
    assert (said.json["planned"], created) == ({"unchanged": 1}, 1)


@pytest.mark.parametrize("key", ["name", "output_dir"])
def test_folder_that_this_locale_cannot_write_is_refused(
    shell: Any, tmp_path: Path, key: str
) -> None:
    manifest = shell.manifest(1, **{key: "f\u00fcchse"})
    said = shell("run", manifest, "--sandbox", key=None, **ASCII_FILES)

    assert (said.code, "LC_ALL=C.UTF-8" in said.err) == (2, True)
    assert [path.name for path in shell.folder.iterdir()] == [manifest.name]


@pytest.mark.parametrize("command", ["status", "ledger", "report", "run"])
def test_folder_with_names_of_another_locale_is_no_bug(
    night: Any, shell: Any, command: str
) -> None:
    said, created = night("id,prompt\nf\u00fcchse,A fox\n", **UTF_8_FILES)
    assert (said.code, created) == (0, 1)

    if command == "run":
        said, created = night("id,prompt\nowl,An owl\n", **ASCII_FILES)
        assert (said.code, created) == (0, 2), said
    else:
        said = shell(command, "outputs/night", key=None, **ASCII_FILES)
        assert (said.code, "LC_ALL=C.UTF-8" in said.err) == (2, True)
