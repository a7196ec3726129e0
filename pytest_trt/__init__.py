"""pytest-trt: is a model still right at this precision, and is it still fast?

The names here are the public Python interface; each is imported when first used, so that having the plugin
installed costs nothing.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pytest_trt.backends.tensorrt.weak_typing import ranges_of_network as read_dynamic_ranges
    from pytest_trt.backends.tensorrt.weak_typing import set_ranges as write_dynamic_ranges
    from pytest_trt.calibration.calibration import calibrate
    from pytest_trt.case.case import Case
    from pytest_trt.comparison.comparison import Comparison, compare
    from pytest_trt.comparison.tolerance import Tolerance
    from pytest_trt.errors import PytestTrtError
    from pytest_trt.evidence.finding import Finding, Severity
    from pytest_trt.evidence.localise import Located, localise
    from pytest_trt.findings.verdict import Verdict
    from pytest_trt.gate import check
    from pytest_trt.golden.create import update as update_golden
    from pytest_trt.golden.golden import Golden
    from pytest_trt.lowering.lowering import lower
    from pytest_trt.lowering.qdq import quantised_activations
    from pytest_trt.model.model import Model
    from pytest_trt.model.model import load as load_model
    from pytest_trt.precision import Precision
    from pytest_trt.ranges.amax import Ranges
    from pytest_trt.ranges.files import read_ranges, write_ranges
    from pytest_trt.report.html import render as render_html
    from pytest_trt.report.record_file import read_record
    from pytest_trt.report.record_file import render as render_record

__all__ = [
    "Case",
    "Comparison",
    "Finding",
    "Golden",
    "Located",
    "Model",
    "Precision",
    "PytestTrtError",
    "Ranges",
    "Severity",
    "Tolerance",
    "Verdict",
    "calibrate",
    "check",
    "compare",
    "load_model",
    "localise",
    "lower",
    "quantised_activations",
    "read_dynamic_ranges",
    "read_ranges",
    "read_record",
    "render_html",
    "render_record",
    "update_golden",
    "write_dynamic_ranges",
    "write_ranges",
]

_HOMES = {
    "Case": "case.case",
    "Comparison": "comparison.comparison",
    "Finding": "evidence.finding",
    "Golden": "golden.golden",
    "Located": "evidence.localise",
    "Model": "model.model",
    "Precision": "precision",
    "PytestTrtError": "errors",
    "Ranges": "ranges.amax",
    "Severity": "evidence.finding",
    "Tolerance": "comparison.tolerance",
    "Verdict": "findings.verdict",
    "calibrate": "calibration.calibration",
    "check": "gate",
    "compare": "comparison.comparison",
    "load_model": "model.model:load",
    "localise": "evidence.localise",
    "lower": "lowering.lowering",
    "quantised_activations": "lowering.qdq",
    "read_dynamic_ranges": "backends.tensorrt.weak_typing:ranges_of_network",
    "read_ranges": "ranges.files",
    "read_record": "report.record_file",
    "render_html": "report.html:render",
    "render_record": "report.record_file:render",
    "update_golden": "golden.create:update",
    "write_dynamic_ranges": "backends.tensorrt.weak_typing:set_ranges",
    "write_ranges": "ranges.files",
}
"""Where each is: a module, and after a colon the name that it has in there, where that is another."""


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        module, _, inside = _HOMES[name].partition(":")
        return getattr(importlib.import_module(f"pytest_trt.{module}"), inside or name)
    raise AttributeError(f"module 'pytest_trt' has no attribute {name!r}")
