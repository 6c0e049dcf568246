"""`--help` of a command: its examples first, its options in groups."""

from __future__ import annotations

import click

GROUPS: dict[str, tuple[str, ...]] = {
    "Which jobs": ("select", "exclude"),
    "Limits": (
        "submit_rate",
        "max_in_flight",
        "deadline_s",
        "budget_usd",
        "max_plan_cost_usd",
        "no_share_account",
    ),
    "What costs money (never from an environment variable)": (
        "new",
        "force",
        "retry_failed",
        "resubmit_unconfirmed",
        "no_move",
    ),
    "Provider and key": (
        "env_file",
        "base_url",
        "proxy",
        "sandbox",
        "callback_url",
        "callback_listen",
    ),
}
REST = "Options"


def examples(*lines: str) -> str:
    """Return *lines* as a block of help that click does not wrap."""
    return "\n".join(["\b", "Examples:", *(f"  {line}" for line in lines)])


class GroupedCommand(click.Command):
    """A command whose options stand in groups; those of no group come last."""

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the groups that have an option here."""
        records = {
            str(param.name): record
            for param in self.get_params(ctx)
            if isinstance(param, click.Option)
            and (record := param.get_help_record(ctx)) is not None
        }
        for title, names in GROUPS.items():
            found = [records.pop(name) for name in names if name in records]
            if found:
                with formatter.section(title):
                    formatter.write_dl(found)
        with formatter.section(REST):
            formatter.write_dl(list(records.values()))
