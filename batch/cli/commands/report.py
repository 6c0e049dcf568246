"""`kling-batch report`: write the HTML page of an output folder."""

from __future__ import annotations

import json
from pathlib import Path

import click

from batch.cli.completing import complete_folder
from batch.cli.folders import check_folder, folders
from batch.cli.words import counted
from batch.errors import ExitCode, UsageError
from batch.report.posters import Mode
from batch.report.write import Report, write_report
from batch.run.presence import Presence

HELP = """Write the HTML page of an output folder: what needs you, what it cost, and the videos.

Without OUTPUT_DIR: of the only folder under outputs/. Needs no network and no key, and may be called
during a run.
"""


@click.command("report", help=HELP)
@click.argument(
    "output_dir",
    required=False,
    type=click.Path(path_type=Path),
    shell_complete=complete_folder,
)
@click.option("--open", "is_opened", is_flag=True, help="Open it in the browser.")
@click.option(
    "--posters",
    type=click.Choice([mode.value for mode in Mode]),
    default=Mode.AUTO.value,
    help="Where the first frames go: into the page, into files beside it, or nowhere; auto puts"
    " them into the page as long as that stays small.",
)
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@click.option(
    "-o",
    "--output",
    "target",
    metavar="FILE",
    type=click.Path(path_type=Path, dir_okay=False),
    help="The file. Default: report.html in OUTPUT_DIR.",
)
def command(
    output_dir: Path | None, *, is_opened: bool, posters: str, as_json: bool, target: Path | None
) -> int:
    """Write the page and print where it is."""
    output_dir = _only_folder() if output_dir is None else output_dir
    check_folder(output_dir)
    report = write_report(output_dir, Presence, target, Mode(posters))
    if report.is_large:
        click.echo(
            f"warning: {report.path} has {report.bytes // 1_000_000} MB; --posters files makes it"
            " smaller",
            err=True,
        )
    click.echo(json.dumps(report.to_json(), ensure_ascii=False) if as_json else to_text(report))
    if is_opened:
        import webbrowser  # noqa: PLC0415

        if not webbrowser.open(report.path.resolve().as_uri()):
            click.echo("warning: no browser was found to open it with", err=True)
    return ExitCode.OK


def _only_folder() -> Path:
    found = folders(())
    if len(found) > 1:
        raise UsageError(f"name one of {', '.join(map(str, found))}")
    return found[0]


def to_text(report: Report) -> str:
    """Return what was written, as text."""
    tiles = report.data["tiles"]
    here = f"{tiles['here']} of {counted(tiles['all'], 'video')} here"
    lines = [
        f"{report.path}: {here}, {tiles['needs']} {'needs' if tiles['needs'] == 1 else 'need'} you"
    ]
    if report.data["running"]:
        lines.append("  a run is under way; the page shows what it has done so far")
    if report.posters.left:
        lines.append(f"  {counted(report.posters.left, 'poster')} left to the next report")
    return "\n".join(lines)
