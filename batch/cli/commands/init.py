"""`kling-batch init`: a manifest to start from."""

from __future__ import annotations

import json
import shlex
from importlib import resources
from pathlib import Path

import click

from batch.cli.completing import SUFFIXES
from batch.cli.grouped import examples
from batch.errors import ExitCode, UsageError

DEFAULT = "clips.yaml"
SCHEMA = "kling-batch.schema.json"
HELP = f"""Write a commented manifest to start from. Overwrites nothing.

{examples("kling-batch init", "kling-batch init jobs/night.yaml")}

FILE is {DEFAULT} if it is not named; its name names the output folder, too. Beside it stands
{SCHEMA}, with which an editor completes and checks the manifest.
"""


@click.command("init", help=HELP)
@click.argument("file", type=click.Path(path_type=Path), default=DEFAULT)
def command(file: Path) -> int:
    """Write the manifest and the schema, and say what comes next."""
    if file.suffix.lower() not in SUFFIXES[:2]:
        raise UsageError(f"{file} is not a valid name of a manifest; for example {DEFAULT}")
    template = resources.files("batch.cli").joinpath("pages/start.yaml").read_text("utf-8")
    _write(file, template)
    schema, beside = file.with_name(SCHEMA), ""
    if not schema.exists():
        from batch.manifest.schema import manifest_schema  # noqa: PLC0415 - `--help` needs none

        _write(schema, json.dumps(manifest_schema(), indent=2, ensure_ascii=False) + "\n")
        beside = f" (and {schema.name} beside it, for your editor)"
    name = shlex.quote(str(file))
    click.echo(
        f"wrote {file}{beside}; change its prompts. Then:\n"
        f"  kling-batch run {name} --sandbox    makes its videos on this machine, without a key or cost\n"
        f"  kling-batch plan {name}             says what a real run would make, and what it would cost"
    )
    return ExitCode.OK


def _write(path: Path, text: str) -> None:
    """Write a file that is not there yet.

    Raises:
        UsageError: it is there, or cannot be written.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("x", encoding="utf-8", newline="\n") as file:
            file.write(text)
    except FileExistsError:
        raise UsageError(f"{path} exists, and is left as it is; name another file") from None
    except OSError as error:
        raise UsageError(f"{path} cannot be written: {error.strerror or error}") from None
