"""pytest-trt: is a model still right at this precision, and is it still fast?

The names here are the public Python interface; each is imported when first used, so that having the plugin
installed costs nothing.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pytest_trt.case.case import Case
    from pytest_trt.comparison.comparison import Comparison, compare
    from pytest_trt.comparison.tolerance import Tolerance
    from pytest_trt.evidence.finding import Finding
    from pytest_trt.findings.verdict import Verdict
    from pytest_trt.gate import check
    from pytest_trt.golden.golden import Golden
    from pytest_trt.lowering.lowering import lower
    from pytest_trt.model.model import Model
    from pytest_trt.precision import Precision
    from pytest_trt.ranges.amax import Ranges

__all__ = [
    "Case",
    "Comparison",
    "Finding",
    "Golden",
    "Model",
    "Precision",
    "Ranges",
    "Tolerance",
    "Verdict",
    "check",
    "compare",
    "lower",
]

_HOMES = {
    "Case": "case.case",
    "Comparison": "comparison.comparison",
    "Finding": "evidence.finding",
    "Golden": "golden.golden",
    "Model": "model.model",
    "Precision": "precision",
    "Ranges": "ranges.amax",
    "Tolerance": "comparison.tolerance",
    "Verdict": "findings.verdict",
    "check": "gate",
    "compare": "comparison.comparison",
    "lower": "lowering.lowering",
}


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        return getattr(importlib.import_module(f"pytest_trt.{_HOMES[name]}"), name)
    raise AttributeError(f"module 'pytest_trt' has no attribute {name!r}")
