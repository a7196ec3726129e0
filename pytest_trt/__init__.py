"""pytest-trt: is a model still right at this precision, and is it still fast?

The names here are the public Python interface; each is imported when first used, so that having the plugin
installed costs nothing.
"""

from __future__ import annotations

import importlib
import sys
import types
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pytest_trt.case import Case
    from pytest_trt.check import check
    from pytest_trt.comparison import Comparison, compare
    from pytest_trt.golden import Golden
    from pytest_trt.lowering import lower
    from pytest_trt.model import Model
    from pytest_trt.precision import Precision
    from pytest_trt.ranges import Ranges
    from pytest_trt.tolerance import Tolerance
    from pytest_trt.verdict import Verdict

__all__ = [
    "Case",
    "Comparison",
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
    "Case": "case",
    "Comparison": "comparison",
    "Golden": "golden",
    "Model": "model",
    "Precision": "precision",
    "Ranges": "ranges",
    "Tolerance": "tolerance",
    "Verdict": "verdict",
    "check": "check",
    "compare": "comparison",
    "lower": "lowering",
}


class _Package(types.ModuleType):
    """Importing the module ``check`` would put it in place of the function of that name: keep the function."""

    def __setattr__(self, name: str, value: Any) -> None:
        if name == "check" and isinstance(value, types.ModuleType):
            value = value.__dict__["check"]
        super().__setattr__(name, value)


sys.modules[__name__].__class__ = _Package


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        return getattr(importlib.import_module(f"pytest_trt.{_HOMES[name]}"), name)
    raise AttributeError(f"module 'pytest_trt' has no attribute {name!r}")
