"""Spread: centre and spread of a few values, some of which may be disturbed; and what can be told from them."""

from __future__ import annotations

import importlib
import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from pytest_trt.errors import BackendError

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from pytest_trt.latency.rule import Rule

__all__ = [
    "Spread",
    "effect",
    "error_needed",
    "half_width",
    "imported",
    "ratio_of",
    "spread_of",
    "tail",
    "unseen",
    "unusable",
]


def imported(module: str, purpose: str) -> Any:
    """A module of the extra.

    Args:
        module: such as "scipy.special".
        purpose: what needs it, the beginning of the message.

    Raises:
        BackendError: it can't be imported.
    """
    try:
        return importlib.import_module(module)
    except ImportError as error:
        package = module.partition(".")[0]
        raise BackendError(
            f'{purpose} needs {package}, which can\'t be imported ({error}): pip install "pytest-trt[latency]".'
        ) from error


_NORMAL_MAD = 1.4826  # standard deviation of a normal distribution over its median absolute deviation
_MOST_LEFT_OUT = 0.2
_SAME = 1e-12
_PURPOSE = "The latency gate"


@dataclass(frozen=True)
class Spread:
    """Of logarithms that count.

    Attributes:
        mean: of those that are kept.
        sd: standard deviation of those, n - 1 degrees of freedom; 0 where all are the same.
        n: how many are kept.
        left_out: how many are not.
    """

    mean: float
    sd: float
    n: int
    left_out: int


def spread_of(values: NDArray[np.float64], cut: float, least: int) -> Spread:
    """Mean and standard deviation of values, without those that are disturbed beyond doubt.

    A value further than ``cut`` standard deviations (by the median absolute deviation) from the median is left out, a
    fifth of them at the most, and none of fewer than ``least``: so few do not show what is usual.

    Args:
        values: at least 2, finite, float64[n].
        cut: in robust standard deviations.
        least: values from which on any is left out.
    """
    kept = values[_usual(values, cut)] if values.size >= least else values
    sd = 0.0 if float(kept.max() - kept.min()) <= _SAME else float(kept.std(ddof=1))
    return Spread(float(kept.mean()), sd, int(kept.size), int(values.size - kept.size))


def _usual(values: NDArray[np.float64], cut: float) -> NDArray[np.bool_]:
    import numpy as np

    away = np.abs(values - np.median(values))
    scale = _NORMAL_MAD * float(np.median(away))
    if scale <= _SAME:
        return np.ones(values.shape, bool)
    allowed = np.sort(away)[values.size - int(_MOST_LEFT_OUT * values.size) - 1]
    return np.asarray(away <= max(cut * scale, allowed))


def tail(t: float, freedom: float) -> float:
    """P(T > t) of Student's t; of the normal distribution where the degrees of freedom are infinite."""
    special = imported("scipy.special", _PURPOSE)
    return float(special.ndtr(-t) if math.isinf(freedom) else special.stdtr(freedom, -t))


def _quantile(p: float, freedom: float) -> float:
    special = imported("scipy.special", _PURPOSE)
    return float(special.ndtri(p) if math.isinf(freedom) else special.stdtrit(freedom, p))


def half_width(error: float, freedom: float, alpha: float) -> float:
    """From the estimate to an end of its interval: alpha outside each end."""
    return error * _quantile(1 - alpha, freedom)


def effect(rule: Rule, error: float, freedom: float, margin: float, threshold: float) -> float:
    """The least slowdown, as a share, that is found with the rule's power.

    Both conditions have to hold: the estimate is beyond the threshold, and further from the margin than the level
    asks. The sum of both quantiles stands for the noncentral t, which it exceeds slightly for few degrees of freedom.

    Args:
        rule: level and power.
        error: standard error of the log-ratio.
        freedom: degrees of freedom.
        margin: share that is tested against.
        threshold: share that the estimate has to exceed.
    """
    power = half_width(error, freedom, 1 - rule.power)
    tested = math.log1p(margin) + half_width(error, freedom, rule.level) + power
    return ratio_of(max(tested, math.log1p(threshold) + power)) - 1


def unseen(rule: Rule, mean: float, error: float, freedom: float, margin: float) -> float:
    """The largest change, as a share, that is not ruled out with the rule's power; one-sided, to the side it is on.

    Args:
        rule: power.
        mean: the log-ratio.
        error: its standard error.
        freedom: degrees of freedom.
        margin: share that the two sides may differ by for no reason.
    """
    return ratio_of(abs(mean) + math.log1p(margin) + half_width(error, freedom, 1 - rule.power)) - 1


def error_needed(rule: Rule, freedom: float, margin: float, threshold: float) -> float:
    """The largest standard error of the log-ratio at which ``effect`` is the rule's ``must_see``.

    Args:
        rule: level, power, and the effect.
        freedom: degrees of freedom that the standard error will be taken to have.
        margin: share that is tested against.
        threshold: share that the estimate has to exceed.
    """
    seen, power = math.log1p(rule.must_see), _quantile(rule.power, freedom)
    tested = (seen - math.log1p(margin)) / max(_quantile(1 - rule.level, freedom) + power, _SAME)
    return min(tested, (seen - math.log1p(threshold)) / max(power, _SAME))


def ratio_of(log: float) -> float:
    """Its exponential; infinite where that is too large for a float."""
    return math.exp(log) if log < 700 else math.inf


def unusable(values: NDArray[np.float64]) -> int:
    """How many are no time: not finite, zero or negative."""
    import numpy as np

    return int(np.sum(~(np.isfinite(values) & (values > 0))))
