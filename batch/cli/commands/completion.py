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
# bash takes a colon for the end of a word (tag:blue are three), and types what it completes as it is:
# a blank or a quote in a job's id would part the line.
BASH = r"""
_kling_batch_words() {
    local words=() word before i
    for word in "${COMP_WORDS[@]:0:COMP_CWORD+1}"; do
        if (( ${#words[@]} )) && [[ $word == :* || ${words[-1]} == *: ]]; then
            words[-1]+=$word
        else
            words+=("$word")
        fi
    done
    local COMP_WORDS=("${words[@]}") COMP_CWORD=$((${#words[@]} - 1))
    _kling_batch_completion "$1"
    word=${words[-1]}
    if [[ $word == *:* && $COMP_WORDBREAKS == *:* ]]; then
        before=${word%"${word##*:}"}
        COMPREPLY=("${COMPREPLY[@]#"$before"}")
    fi
    for i in "${!COMPREPLY[@]}"; do
        printf -v word %q "${COMPREPLY[i]}"
        [[ $word == "$'"* ]] || COMPREPLY[i]=$word  # letters that a plain locale does not know
    done
}

complete -o nosort -F _kling_batch_words kling-batch
"""


@click.command("completion", help=HELP)
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
@click.pass_context
def command(ctx: click.Context, shell: str) -> int:
    """Print the script."""
    found = get_completion_class(shell)
    assert found is not None, "click knows all three"
    root = ctx.find_root()
    script = found(root.command, {}, str(root.info_name), VARIABLE).source()
    click.echo(script + BASH if shell == "bash" else script)
    return ExitCode.OK
