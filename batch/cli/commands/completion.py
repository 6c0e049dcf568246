"""`kling-batch completion`: the script that teaches a shell our commands."""

from __future__ import annotations

import click
from click.shell_completion import get_completion_class

from batch.errors import ExitCode

HELP = """Print the completion script of a shell: commands, options, manifests, folders, job ids.

\b
  bash   eval "$(kling-batch completion bash)"     in ~/.bashrc
  zsh    eval "$(kling-batch completion zsh)"      in ~/.zshrc
  fish   kling-batch completion fish > ~/.config/fish/completions/kling-batch.fish
"""
VARIABLE = "_KLING_BATCH_COMPLETE"  # as click derives it from the command's name


@click.command("completion", help=HELP)
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
@click.pass_context
def command(ctx: click.Context, shell: str) -> int:
    """Print the script."""
    found = get_completion_class(shell)
    assert found is not None, "click knows all three"
    root = ctx.find_root()
    click.echo(found(root.command, {}, str(root.info_name), VARIABLE).source())
    return ExitCode.OK
