"""The command line: parse, call, exit code. A command's file is imported only to run it."""

from __future__ import annotations

import errno
import importlib
import json
import os
import sys
from collections.abc import Sequence
from pathlib import Path

import click
from click.shell_completion import CompletionItem

from batch import __version__
from batch.cli.bug_report import print_error, write_bug_report
from batch.cli.notice import Notice, new_notice
from batch.cli.problems import faults_beside, problems_of, with_hint
from batch.cli.words import similar
from batch.errors import NO_MEMORY, BatchError, ExitCode, UsageError

COMMANDS = {
    "init": "Write a commented manifest to start from.",
    "doctor": "Check this machine, the key and the folders; spend nothing.",
    "run": "Bring the output folder up to date with the manifest.",
    "plan": "Report what `run` would do and cost; send nothing.",
    "status": "Report the state of every job, also during a run.",
    "report": "Write the HTML page: what needs you, what it cost, the videos.",
    "ledger": "List every task ever paid for, and what became of it.",
    "restore": "Bring an earlier version of a video back; nothing is paid.",
    "prune": "Move orphans to versions/; delete old versions and strays on request.",
    "adopt": "Settle an unconfirmed job: this task is it.",
    "forget": "Settle an unconfirmed job: the provider has no task for it.",
    "notify": "Try out whom a run tells when it has ended.",
    "worker": "Carry out the runs of a fleet.",
    "engine": "Share libraries between machines: a Postgres, and what is in it.",
    "sandbox": "Serve the local imitation of the API.",
    "schema": "Print the manifest's JSON Schema.",
    "completion": "Print the completion script of bash, zsh or fish.",
    "help": "Show a page of the manual, or the help of a command.",
}
EXHAUSTED = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.EAGAIN})
DISK = frozenset(
    {errno.EACCES, errno.EPERM, errno.EROFS, errno.EIO, errno.ENOSPC, errno.ENXIO, errno.ENODEV}
    | {errno.ENAMETOOLONG, errno.ELOOP}
    # Network drives, and quotas; Windows knows not all of them.
    | {getattr(errno, name) for name in ("ESTALE", "EDQUOT", "ENOTCONN") if hasattr(errno, name)}
)
NOT_MAPPED = "failed to map segment"  # what the loader says of a library that finds no memory
EXIT_CODES_HELP = """\b
Exit codes:
  0    every job selected is done: made now, or up to date already
  1    the run went through; some jobs failed, timed out or are unconfirmed
  2    wrong usage or manifest, or the state is gone; nothing was sent
  3    stopped early by a limit of your own (deadline, budget, saved plan)
  4    the provider refuses the account (key, credit, permission), or the base URL is wrong
  70   a bug of ours; a report file is named
  75   another run holds the output folder
  130, 143   interrupted; the state is saved
"""


class LazyGroup(click.Group):
    """A group that imports a command only to run it."""

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002
        """Return the names in the order of the README."""
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Return the command of this name, importing its file."""
        if cmd_name not in COMMANDS:
            return super().get_command(ctx, cmd_name)
        module = importlib.import_module(f"batch.cli.commands.{cmd_name}")
        command: click.Command = module.command
        return command

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Return the command, or fail with the most similar name."""
        if args and args[0] not in COMMANDS and not args[0].startswith("-"):
            near = similar(args[0], COMMANDS, most=1)
            hint = f" Did you mean {near[0]!r}?" if near else ""
            ctx.fail(f"No such command {args[0]!r}.{hint}")
        return super().resolve_command(ctx, args)

    def shell_complete(self, ctx: click.Context, incomplete: str) -> list[CompletionItem]:
        """Return the commands that begin so, without importing one."""
        found = [name for name in COMMANDS if name.startswith(incomplete)]
        items = [CompletionItem(name, help=COMMANDS[name]) for name in found]
        return items + click.Command.shell_complete(self, ctx, incomplete)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:  # noqa: ARG002
        """List the commands without importing one."""
        with formatter.section("Commands"):
            formatter.write_dl(list(COMMANDS.items()))


@click.command(
    cls=LazyGroup,
    help="Run a manifest of text-to-video prompts through Kling (CometAPI): paid once, collected"
    " always.\n\nStart with `kling-batch init`; `kling-batch help` lists the pages of the manual.",
    epilog=EXIT_CODES_HELP,
    context_settings={"help_option_names": ["-h", "--help"]},
)
@click.version_option(__version__, prog_name="kling-batch")
def app() -> None:
    """Carry the commands."""


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line and return its exit code. Raises nothing."""
    args = list(sys.argv[1:] if argv is None else argv)
    notice = new_notice(args)
    code = _main(args, notice)
    if notice.is_wanted:
        from batch.cli.reporting import report, write_metrics  # noqa: PLC0415 - `--help` reports nothing

        report(notice, code)
        write_metrics(notice, code)
    return code


def _main(args: list[str], notice: Notice) -> int:
    try:
        try:
            _check_working_directory()
            result = app.main(args=args, prog_name="kling-batch", standalone_mode=False, obj=notice)
        except (click.ClickException, BatchError) as error:
            return _tell(error, args, notice)
    except (click.exceptions.Abort, KeyboardInterrupt):
        return ExitCode.INTERRUPTED
    except Exception as error:  # noqa: BLE001 - a bug: a report instead of a traceback
        told = _system_error(error) or _locale_error(error)
        if told is not None:
            return _tell(told, args, notice)
        import traceback  # noqa: PLC0415 - only a bug needs it

        path = write_bug_report("".join(traceback.format_exception(error)))
        message = f"this is a bug of kling-batch ({type(error).__name__}); report it with {path}"
        return _tell(BatchError(message), args, notice, ExitCode.BUG)
    return int(result) if isinstance(result, int) else ExitCode.OK


def _check_working_directory() -> None:
    """Every path that is not absolute starts there, also those that nobody has named."""
    try:
        Path.cwd()
    except OSError as error:
        raise UsageError(
            f"the working directory is not there any more ({error.strerror}): it was deleted or moved,"
            " or its disk is away; change to a folder that is there, and run again. Nothing was sent"
        ) from error


def _system_error(error: Exception) -> BatchError | None:
    """Return what to tell of what the system refuses, wherever it does; None of another error."""
    if isinstance(error, MemoryError) or (
        isinstance(error, ImportError) and NOT_MAPPED in str(error)
    ):
        return BatchError(NO_MEMORY)
    if not isinstance(error, OSError):
        return None
    if error.errno in EXHAUSTED:
        return BatchError(
            f"the system grants this process no more ({error.strerror}); run again later"
        )
    if error.errno in DISK:
        what = "a file" if error.filename is None else os.fsdecode(error.filename)
        return BatchError(
            f"{what} cannot be used ({error.strerror}); are its permissions right, and its disk there and"
            " sound? Correct that and run again"
        )
    return None


def _locale_error(error: Exception) -> UsageError | None:
    """Return what to tell of a file that cannot be named in this locale; None of another error."""
    if not isinstance(error, UnicodeEncodeError):
        return None
    from batch.manifest.ids import locale_fault  # noqa: PLC0415 - as above

    fault = locale_fault(error.object)
    return None if fault is None else UsageError(f"a file of this folder has {fault}")


def _tell(
    error: click.ClickException | BatchError,
    args: Sequence[str],
    notice: Notice,
    code: ExitCode | None = None,
) -> ExitCode:
    """Say what is wrong, to the person and (with `--json`) to the program; return the exit code."""
    beside = None
    if isinstance(error, click.ClickException):
        error = with_hint(error)
        error.show(sys.stderr)
        code, beside = ExitCode.USAGE, faults_beside(error, args)
        if beside is not None:
            print_error(str(beside))
    else:
        print_error(str(error))
        code = code or error.exit_code
    told = problems_of(error, code, beside)
    text = error.format_message() if isinstance(error, click.ClickException) else str(error)
    notice.result, notice.text = told, text
    if "--json" in args:
        click.echo(json.dumps(told, ensure_ascii=False))
    return code
