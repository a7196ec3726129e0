"""``pytest-trt completion``: what a shell reads to complete our commands and options."""

from __future__ import annotations

import click

__all__ = ["command"]

_VARIABLE = "_PYTEST_TRT_COMPLETE"


@click.command(name="completion", short_help="Print what a shell completes by.")
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
def command(shell: str) -> None:
    """Print the completion for SHELL, to be read where it starts.

    \b
    bash  ~/.bashrc:  eval "$(pytest-trt completion bash)"
    zsh   ~/.zshrc:   eval "$(pytest-trt completion zsh)"
    fish  pytest-trt completion fish > ~/.config/fish/completions/pytest-trt.fish
    """
    from click.shell_completion import get_completion_class

    from pytest_trt.cli import main

    found = get_completion_class(shell)
    if found is None:  # pragma: no cover - click has had these three since 8.0
        raise click.UsageError(f"click knows no completion for {shell}.")
    try:
        click.echo(found(main, {}, "pytest-trt", _VARIABLE).source())
    except RuntimeError as error:  # a bash that is too old, or none
        raise click.UsageError(str(error)) from error
