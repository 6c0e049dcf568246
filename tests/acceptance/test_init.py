"""`kling-batch init`: a manifest to start from, and the schema beside it."""

from __future__ import annotations

import json
from typing import Any

import pytest
import yaml
from jsonschema import Draft202012Validator


def test_init_plans_and_runs_without_a_warning(shell: Any) -> None:
    said = shell("init", key=None)
    assert (said.code, said.err) == (0, "")
    for command in ("kling-batch run clips.yaml --sandbox", "kling-batch plan clips.yaml"):
        assert command in said.out

    planned = shell("plan", "clips.yaml", key=None)
    assert (planned.code, planned.err) == (0, "")
    made = shell("run", "clips.yaml", "--sandbox", "--json", "--progress", "never", key=None)
    assert (made.code, "warn" in made.err.lower()) == (0, False)
    videos = [path.stem for path in (shell.folder / "outputs/clips.sandbox/videos").iterdir()]
    assert sorted(videos) == ["fox-evening", "fox-morning", "harbour"]


def test_init_fits_the_schema_beside_it(shell: Any) -> None:
    """The first line tells an editor where that is."""
    assert shell("init", "jobs/night.yaml", key=None).code == 0
    text = (shell.folder / "jobs/night.yaml").read_text("utf-8")
    marker, _, name = text.splitlines()[0].partition("=")
    assert marker == "# yaml-language-server: $schema"

    schema = json.loads((shell.folder / "jobs" / name).read_text("utf-8"))
    assert schema == shell("schema", key=None).json
    found = Draft202012Validator(schema).iter_errors(yaml.safe_load(text))
    assert [error.message for error in found] == []


def test_init_names_what_it_has_written(shell: Any) -> None:
    beside = "(and kling-batch.schema.json beside it, for your editor)"
    assert shell("init", key=None).out.startswith(f"wrote clips.yaml {beside}; ")
    assert shell("init", "more.yaml", key=None).out.startswith("wrote more.yaml; ")


def test_init_overwrites_nothing(shell: Any) -> None:
    (shell.folder / "night.yaml").write_text("mine")
    (shell.folder / "kling-batch.schema.json").write_text("mine, too")
    before = shell.files()

    said = shell("init", "night.yaml", key=None)
    assert (said.code, "night.yaml exists" in said.err) == (2, True)
    assert shell.files() == before

    assert shell("init", key=None).code == 0
    assert shell.files()["kling-batch.schema.json"] == b"mine, too"


@pytest.mark.parametrize("name", ["night", "night.csv", "folder", "file/night.yaml"])
def test_init_refuses_what_is_no_manifest(shell: Any, name: str) -> None:
    (shell.folder / "folder").mkdir()
    (shell.folder / "file").write_text("in the way")
    before = shell.files()

    assert shell("init", name, key=None).code == 2
    assert shell.files() == before


def test_init_names_commands_that_a_shell_understands(shell: Any) -> None:
    said = shell("init", "my clips.yaml", key=None)
    assert "kling-batch plan 'my clips.yaml'" in said.out
    assert shell("plan", "my clips.yaml", key=None).code == 0
