"""`kling-batch help`: the pages of the manual, and the help of commands."""

from __future__ import annotations

import re
import sys
from importlib import resources

import click
from click.shell_completion import CompletionItem
from click.types import StringParamType

from batch.cli.main import COMMANDS
from batch.cli.words import similar
from batch.errors import ExitCode, UsageError

TOPICS = {
    "manifest": "Every key: jobs, tables of prompts, limits, budgets, who is told.",
    "money-rule": "Why nothing is paid for twice, rule by rule.",
    "results-and-state": "The output folder, results.jsonl, versions, unconfirmed jobs.",
    "operations": "cron, systemd, Actions, proxies, several machines, backup, callbacks.",
    "fleet": "Many machines, one account: Postgres, workers, backup, upgrades.",
    "sandbox": "Trying things out without a key: faults, and a server for other clients.",
    "python-api": "Plan and run from Python, rows as they come, events.",
    "recipes": "results.jsonl with jq, DuckDB and pandas.",
    "design": "How the code is built, the life of an attempt, benchmarks.",
}
_MARKS = re.compile(r"^(```\w+) .*$", re.MULTILINE)  # what only the tests of the pages read


class Topic(StringParamType):
    """A page, or a command."""

    name = "topic"

    def shell_complete(
        self,
        ctx: click.Context,  # noqa: ARG002 - click's signature
        param: click.Parameter,  # noqa: ARG002
        incomplete: str,
    ) -> list[CompletionItem]:
        """Return the topics that begin so, with what they are about."""
        known = {**TOPICS, **COMMANDS}
        fitting = [name for name in known if name.startswith(incomplete)]
        return [CompletionItem(name, help=known[name]) for name in fitting]


@click.command("help", help="Show a page of the manual, or the help of a command.")
@click.argument("topic", type=Topic(), required=False)
@click.pass_context
def command(ctx: click.Context, topic: str | None) -> int:
    """Show it."""
    root = ctx.find_root()
    assert isinstance(root.command, click.Group)
    if topic is None:
        click.echo(_overview())
    elif topic in TOPICS:
        _show(page(topic))
    elif found := root.command.get_command(root, topic):
        click.echo(found.get_help(click.Context(found, info_name=topic, parent=root)))
    else:
        near = similar(topic, [*TOPICS, *COMMANDS])
        hint = f"; did you mean {' or '.join(near)}?" if near else f"; one of: {', '.join(TOPICS)}"
        raise UsageError(f"there is no page {topic!r}{hint}")
    return ExitCode.OK


def page(topic: str) -> str:
    """Return the page as Markdown."""
    text = resources.files("batch.cli").joinpath(f"pages/{topic}.md").read_text("utf-8")
    return _MARKS.sub(r"\1", text)


def _overview() -> str:
    formatter = click.HelpFormatter()
    with formatter.section("Pages, for kling-batch help TOPIC"):
        formatter.write_dl(list(TOPICS.items()))
    with formatter.section("Commands, for kling-batch help COMMAND"):
        formatter.write_dl(list(COMMANDS.items()))
    return formatter.getvalue().rstrip()


def _show(text: str) -> None:
    """Print Markdown: formatted and paged on a terminal, as it is elsewhere."""
    if not sys.stdout.isatty():
        click.echo(text.rstrip())
        return
    from rich.console import Console  # noqa: PLC0415 - for terminals only
    from rich.markdown import Markdown  # noqa: PLC0415

    console = Console(width=min(100, Console().width))
    with console.capture() as shown:
        console.print(Markdown(text))
    click.echo_via_pager(shown.get(), color=None)
