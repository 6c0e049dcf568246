"""`kling-batch help`, and the `--help` of every command."""

from __future__ import annotations

import os
import pty
import subprocess
from pathlib import Path
from typing import Any

import pytest

from batch.cli.commands.help import TOPICS
from batch.cli.main import COMMANDS

PAGES = Path(__file__).parents[2] / "batch/cli/pages"
HEAVY = {"asyncio", "aiohttp", "yaml", "rich", "batch.run.execute"}
# What reads and writes videos does so in threads; the sandbox's help lists what its server can do.
NEEDED = {"restore": {"asyncio"}, "prune": {"asyncio"}, "sandbox": {"asyncio", "aiohttp"}}


def test_every_page_has_a_topic_and_is_shown(shell: Any) -> None:
    assert {path.stem for path in PAGES.glob("*.md")} == set(TOPICS)
    overview = shell("help", key=None)
    assert overview.code == 0
    for topic in TOPICS:
        assert topic in overview.out
        said = shell("help", topic, key=None)
        assert (said.code, said.err) == (0, "")
        assert said.out.startswith("# ")


def test_page_is_formatted_on_a_terminal(shell: Any) -> None:
    """Its marks of Markdown are gone."""
    here, there = pty.openpty()
    env = {**shell.env(None, {}), "TERM": "xterm", "PAGER": "cat", "PATH": "/usr/bin:/bin"}
    command = [*shell.command, "help", "money-rule"]
    with subprocess.Popen(command, env=env, stdin=there, stdout=there, stderr=there) as process:
        os.close(there)
        shown = b""
        try:
            while piece := os.read(here, 65_536):
                shown += piece
        except OSError:  # the other end is closed
            pass
    os.close(here)
    text = shown.decode()
    assert process.returncode == 0
    assert "paid for twice" in text
    assert "**" not in text


def test_help_knows_commands_and_near_names(shell: Any) -> None:
    assert shell("help", "plan", key=None).out == shell("plan", "--help", key=None).out
    said = shell("help", "money", key=None)
    assert (said.code, "did you mean money-rule?" in said.err) == (2, True)


@pytest.mark.parametrize("command", COMMANDS)
def test_help_of_command_loads_nothing_heavy(shell: Any, command: str) -> None:
    """It answers at once, also on a slow disk."""
    said = shell(command, "--help", key=None, PYTHONPROFILEIMPORTTIME="1")
    assert said.code == 0
    assert f"Usage: kling-batch {command}" in said.out
    loaded = {line.rpartition("|")[2].strip() for line in said.err.splitlines()}
    assert loaded & HEAVY <= NEEDED.get(command, set())


@pytest.mark.parametrize("command", ["run", "plan"])
def test_options_stand_in_groups_behind_examples(shell: Any, command: str) -> None:
    said = shell(command, "--help", key=None).out
    titles = ["Examples:", "Which jobs:", "Limits:", "What costs money", "Provider and key:"]
    places = [said.index(title) for title in [*titles, "\nOptions:"]]
    assert places == sorted(places)
    assert said.count("--force ") == 1


@pytest.mark.parametrize("command", ["prune", "doctor"])
def test_sandbox_is_a_folder_where_nothing_runs(shell: Any, command: str) -> None:
    said = " ".join(shell(command, "--help").out.split())
    assert "The folder of runs with --sandbox" in said
    assert "embedded local server" not in said
