"""The command line ``pytest-trt``: what is done to a model outside a test, each command a module."""

from __future__ import annotations

import importlib
import sys
from typing import Any

import click

from pytest_trt.errors import PytestTrtError
from pytest_trt.report.layout import visible

__all__ = ["completion", "main"]

# a line each: the command's word, its module in this folder, and its function
_COMMANDS = {
    "baseline": ("_baseline", "command"),
    "calibrate": ("_calibrate", "command"),
    "compare": ("_compare", "compare"),
    "completion": ("main", "completion"),
    "doctor": ("_doctor", "command"),
    "golden": ("_golden", "command"),
    "history": ("_history", "command"),
    "inspect": ("_inspect", "command"),
    "lower": ("_lower", "command"),
    "ranges": ("_ranges", "command"),
    "report": ("_compare", "report"),
    "sensitivity": ("_sensitivity", "command"),
}


class _Refused(click.ClickException):
    exit_code = 2

    def show(self, file: Any = None) -> None:
        lines = f"pytest-trt: error: {self.format_message()}".split("\n")
        click.echo("\n".join(map(visible, lines)), err=True, file=file)


class _Commands(click.Group):
    """Imports a command when it is called, and turns our errors into messages: 2 bad input, 130 interrupted."""

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002 - click's signature
        return sorted(_COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:  # noqa: ARG002
        if cmd_name not in _COMMANDS:
            return None
        module, function = _COMMANDS[cmd_name]
        command: click.Command = getattr(importlib.import_module(f"pytest_trt.cli.{module}"), function)
        return command

    def main(self, *args: Any, **kwargs: Any) -> Any:
        """As click's, on streams that show a sign they have no byte for as its escape (cp1252 on Windows)."""
        for stream in (sys.stdout, sys.stderr):
            if hasattr(stream, "reconfigure"):
                stream.reconfigure(errors="backslashreplace")
        return super().main(*args, **kwargs)

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except PytestTrtError as error:
            raise _Refused(str(error)) from error
        except OSError as error:
            raise _Refused(f"{error.filename or 'a file'}: {error.strerror or error}") from error
        except KeyboardInterrupt:
            if sys.stderr.isatty():
                click.echo("\r\x1b[2K", nl=False, err=True)  # what the progress left there
            click.echo("pytest-trt: interrupted, nothing was left half-written", err=True)
            ctx.exit(130)


@click.group(cls=_Commands, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="pytest-trt")
def main() -> None:
    """Look after models for TensorRT: this machine, goldens, ranges, records and latencies.

    Exit codes: 0 done, 1 what was looked at is not as it should be, 2 a word or file that can't be used, 130
    interrupted.
    """


_VARIABLE = "_PYTEST_TRT_COMPLETE"


@click.command(name="completion", short_help="Print what a shell completes by.")
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
def completion(shell: str) -> None:
    """Print the completion for SHELL, to be read where it starts.

    \b
    bash  ~/.bashrc:  eval "$(pytest-trt completion bash)"
    zsh   ~/.zshrc:   eval "$(pytest-trt completion zsh)"
    fish  pytest-trt completion fish > ~/.config/fish/completions/pytest-trt.fish
    """
    from click.shell_completion import get_completion_class

    found = get_completion_class(shell)
    if found is None:  # pragma: no cover - click has had these three since 8.0
        raise click.UsageError(f"click knows no completion for {shell}.")
    try:
        click.echo(found(main, {}, "pytest-trt", _VARIABLE).source())
    except RuntimeError as error:  # a bash that is too old, or none
        raise click.UsageError(str(error)) from error
