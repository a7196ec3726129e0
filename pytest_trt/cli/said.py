"""What every command says in the same way: progress on a terminal, and the end as lines or as JSON."""

from __future__ import annotations

import json
import math
import sys
import time
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping
    from pathlib import Path

    from pytest_trt.cli.shown import Part

__all__ = [
    "CALIBRATED",
    "Finite",
    "as_json",
    "comma_lists",
    "force_cache",
    "json_text",
    "require_free",
    "require_header_heeded",
    "say",
    "watched",
    "written",
]

_SECONDS_BETWEEN = 0.2

CALIBRATED = ("int8", "fp8")
"""The precisions that take ranges, by the names on the command line, which is told before anything is imported."""

as_json = click.option("--json", "as_json", is_flag=True, help="Print the result as JSON.")


force_cache = click.option("--force", is_flag=True, help="Write over a calibration cache that is there.")


class Finite(click.FloatRange):
    """A number inside its range: click's own takes "nan", which no comparison puts outside, and "inf"."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """The number; anything else ends the command with a message."""
        found = super().convert(value, param, ctx)
        return found if math.isfinite(found) else self.fail(f"{value!r} is no finite number.", param, ctx)


def require_free(output: Path, force: bool, *sources: Path | None) -> None:
    """Refuse to write over what is read, or over a calibration cache: TensorRT's own can't be made again elsewhere."""
    for source in sources:
        if source is not None and output.resolve() == source.resolve():
            raise click.UsageError(f"{output} is what is read: name another file with -o.")
    if output.suffix == ".cache" and output.exists() and not force:
        raise click.UsageError(f"{output} is there already, and may be TensorRT's own: name another, or add --force.")


def require_header_heeded(header: str | None, output: Path) -> None:
    """Refuse the first line of a cache for what is none."""
    if header and output.suffix != ".cache":
        raise click.UsageError(f"--header is the first line of a TensorRT calibration cache, and {output} is none.")


def say(parts: Iterable[Part], facts: Mapping[str, Any], *, json_wanted: bool) -> None:
    """Print facts for a program, or lines and tables for a person."""
    if json_wanted:
        click.echo(json_text(facts))
        return
    from pytest_trt.cli.shown import show

    show(parts)


def json_text(facts: Mapping[str, Any]) -> str:
    """Facts as JSON."""
    return json.dumps(_plain(facts), indent=1, allow_nan=False)


def _plain(value: Any) -> Any:
    """The value in JSON's words; numbers that it has none for are texts, as in the record."""
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    if isinstance(value, dict):
        return {str(key): _plain(item) for key, item in value.items()}
    return [_plain(item) for item in value] if isinstance(value, (list, tuple)) else value


def comma_lists(texts: Iterable[str]) -> tuple[str, ...]:
    """The words of an option that is repeated, a comma list, or both; each once, in order."""
    words = (word.strip() for text in texts for word in text.split(","))
    return tuple(dict.fromkeys(word for word in words if word))


def watched() -> Callable[[str, float | None], None] | None:
    """What to tell progress to: the last line of a terminal, None where nobody watches."""
    if not sys.stderr.isatty():
        return None
    last = 0.0

    def tell(phase: str, share: float | None) -> None:
        nonlocal last
        if phase and time.monotonic() - last < _SECONDS_BETWEEN:
            return
        last = time.monotonic()
        done = "" if share is None else f" {100 * share:.0f} %"
        click.echo(f"\r\x1b[2K{phase}{done}", nl=False, err=True)

    return tell


def written(path: Path, data: bytes) -> None:
    """Write a file whole or not at all.

    Raises:
        DataError: it can't be written there.
    """
    from pytest_trt.atomic import write_whole
    from pytest_trt.errors import DataError

    try:
        write_whole(path, data)
    except OSError as error:
        raise DataError(f"{path} can't be written: {error.strerror or error}.") from error
