"""Numbers: the record's numbers as people read them; None and what is missing is a dash, "nan" and "inf" stay words."""

from __future__ import annotations

import math
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["amount", "count", "finite", "is_over", "number", "percent", "ratio", "seconds", "size", "value", "when"]

NOTHING = "–"

_GAP = "\u00a0"  # a number and its unit stay on one line

_UNITS = ((1.0, "s"), (1e-3, "ms"), (1e-6, "µs"), (1e-9, "ns"))
_SIZES = ((2.0**30, "GiB"), (2.0**20, "MiB"), (2.0**10, "KiB"), (1.0, "B"))


def is_over(hop: Mapping[str, Any]) -> bool:
    """Whether a hop errs by more than it may; NaN does."""
    error, limit = finite(hop["rel_rms"]), finite(hop["limit"])
    return limit is not None and not (error is not None and error <= limit)


def finite(value: Any) -> float | None:
    """A number that can be drawn, else None: the record's "nan" and "inf" can't."""
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return None
    try:
        found = float(value)
    except OverflowError:
        return None
    return found if math.isfinite(found) else None


def number(value: Any, digits: int = 3) -> str:
    """A number to so many digits; words stay as they are.

    >>> number(0.0384383), number("inf"), number(None), number(6504.2)
    ('0.0384', 'inf', '–', '6504')
    """
    if value is None:
        return NOTHING
    found = finite(value)
    if found is None:
        return str(value)
    if not isinstance(value, float):
        return str(value)
    return f"{value:.0f}" if 10**digits <= abs(found) < 1e6 else f"{value:.{digits}g}"


def count(value: Any) -> str:
    """A whole number with its thousands apart (by a thin space)."""
    found = finite(value)
    return number(value) if found is None else f"{int(found):,}".replace(",", "\u202f")


def percent(value: Any, digits: int = 3) -> str:
    """A share of 1 in percent."""
    found = finite(value)
    return number(value) if found is None else f"{100 * found:.{digits}g}{_GAP}%"


def ratio(value: Any) -> str:
    r"""How much more or less than 1, in percent with its sign.

    >>> ratio(1.042), ratio(0.9)
    ('+4.2\xa0%', '-10\xa0%')
    """
    found = finite(value)
    if found is None:
        return number(value)
    more = 100 * (found - 1)
    return f"{more:+.2g}{_GAP}%" if abs(more) > 1e-9 else f"0{_GAP}%"


def seconds(value: Any) -> str:
    r"""Seconds in the unit that fits.

    >>> seconds(0.00123), seconds(4.2e-6)
    ('1.23\xa0ms', '4.2\xa0µs')
    """
    return _in_units(value, _UNITS, 4)


def size(value: Any) -> str:
    """Bytes in the unit that fits."""
    return _in_units(value, _SIZES, 3)


def amount(value: Any, unit: str) -> str:
    """A number with its unit; what is none goes without."""
    return number(value) if finite(value) is None else f"{number(float(value))}{_GAP}{unit}"


def value(value: Any) -> str:
    """Anything of the record that is no table or list, as text."""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if value is None or value == "":
        return NOTHING
    return number(value, 6) if isinstance(value, float) else str(value)


def when(value: Any) -> str:
    """A moment of ISO 8601 to the minute; anything else as it is.

    >>> when("2026-11-25T22:10:56.211+00:00")
    '2026-11-25 22:10 UTC'
    """
    try:
        moment = datetime.fromisoformat(str(value))
    except ValueError:
        return str(value)
    return f"{moment:%Y-%m-%d %H:%M} {'UTC' if moment.utcoffset() == timedelta(0) else f'{moment:%z}'}".strip()


def _in_units(value: Any, units: tuple[tuple[float, str], ...], digits: int) -> str:
    found = finite(value)
    if found is None:
        return number(value)
    size, unit = next((each for each in units if abs(found) >= each[0]), units[-1])
    return f"{found / size:.{digits}g}{_GAP}{unit}" if found else f"0{_GAP}{units[0][1]}"
