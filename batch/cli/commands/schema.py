"""`kling-batch schema`: the JSON Schema of manifests."""

from __future__ import annotations

import json

import click

from batch.errors import ExitCode
from batch.manifest.schema import manifest_schema


@click.command("schema", help="Print the manifest's JSON Schema, for editors.")
def command() -> int:
    """Print the schema."""
    click.echo(json.dumps(manifest_schema(), indent=2, ensure_ascii=False))
    return ExitCode.OK
