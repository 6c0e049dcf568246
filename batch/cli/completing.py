"""What the shell completes beyond commands and options: manifests, folders, job ids.

Whatever cannot be read completes to nothing: a message would land in the middle of the line typed.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from glob import escape
from pathlib import Path

import click
from click.shell_completion import CompletionItem

SUFFIXES = (".yaml", ".yml", ".json")
MOST = 200
Completer = Callable[[click.Context, click.Parameter, str], list[CompletionItem]]


def complete_manifest(
    _ctx: click.Context, _param: click.Parameter, incomplete: str
) -> list[CompletionItem]:
    """Return the manifests of the folder typed so far and of those in it, or else any file."""
    folder, begun = Path(incomplete).parent, incomplete.rpartition("/")[2]
    if incomplete.endswith("/"):
        folder, begun = Path(incomplete), ""
    found = sorted(
        str(path)
        for pattern in (f"{escape(begun)}*", f"{escape(begun)}*/*")
        for path in folder.glob(pattern)
        if path.suffix.lower() in SUFFIXES and not path.name.startswith(".") and path.is_file()
    )
    return [CompletionItem(path) for path in found[:MOST]] or [CompletionItem(incomplete, "file")]


def complete_folder(
    _ctx: click.Context, _param: click.Parameter, incomplete: str
) -> list[CompletionItem]:
    """Return the output folders under outputs/, or else any folder."""
    found = sorted(str(path.parent) for path in Path("outputs").glob("*/.kling-batch"))
    fitting = [CompletionItem(path) for path in found if path.startswith(incomplete)]
    return fitting or [CompletionItem(incomplete, "dir")]


def complete_any_folder(
    _ctx: click.Context, _param: click.Parameter, incomplete: str
) -> list[CompletionItem]:
    """Have the shell complete a folder."""
    return [CompletionItem(incomplete, "dir")]


def complete_file(
    _ctx: click.Context, _param: click.Parameter, incomplete: str
) -> list[CompletionItem]:
    """Have the shell complete a file."""
    return [CompletionItem(incomplete, "file")]


def complete_job(
    ctx: click.Context, _param: click.Parameter, incomplete: str
) -> list[CompletionItem]:
    """Return the ids of the jobs that the output folder in the line knows."""
    from batch.errors import BatchError  # noqa: PLC0415 - only a shell needs it
    from batch.output.stores import open_to_read  # noqa: PLC0415

    try:
        with open_to_read(Path(ctx.params["output_dir"])) as database:
            ids = sorted(database.known())
    except (BatchError, KeyError, TypeError):
        return []
    return [CompletionItem(name) for name in ids if name.startswith(incomplete)][:MOST]


def complete_pattern(
    ctx: click.Context, _param: click.Parameter, incomplete: str
) -> list[CompletionItem]:
    """Return job ids, tags and states of the manifest that stands in the line."""
    # While an option lacks its value, click leaves the arguments where they are.
    named = [ctx.params.get("manifest"), *map(Path, ctx.args)]
    manifest = next((path for path in named if path and path.suffix.lower() in SUFFIXES), None)
    return [CompletionItem(name) for name in _patterns(manifest, incomplete)][:MOST]


def _patterns(manifest: Path | None, incomplete: str) -> Iterator[str]:
    from batch.errors import BatchError  # noqa: PLC0415 - only a shell needs it
    from batch.manifest.reader import load  # noqa: PLC0415
    from batch.plan.select import STATE, STATES, TAG  # noqa: PLC0415

    try:
        jobs = () if manifest is None else load(manifest).jobs
    except BatchError:
        return
    tags = sorted({tag for job in jobs for tag in job.tags})
    names = [*(job.id for job in jobs), *(f"{TAG}{tag}" for tag in tags)]
    names += [f"{STATE}{state}" for state in STATES]
    yield from (name for name in names if name.startswith(incomplete))
