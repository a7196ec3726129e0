"""pytest's side: options, marker, fixtures, hooks. Everything heavier is imported when it is used."""

from pytest_trt.plugin.fixtures import trt_benchmark, trt_case, trt_check, trt_engine, trt_golden, trt_precision
from pytest_trt.plugin.hooks import (
    pytest_addoption,
    pytest_collect_file,
    pytest_collection_modifyitems,
    pytest_configure,
    pytest_generate_tests,
    pytest_report_header,
    pytest_runtest_makereport,
    pytest_runtest_setup,
)

__all__ = [
    "pytest_addoption",
    "pytest_collect_file",
    "pytest_collection_modifyitems",
    "pytest_configure",
    "pytest_generate_tests",
    "pytest_report_header",
    "pytest_runtest_makereport",
    "pytest_runtest_setup",
    "trt_benchmark",
    "trt_case",
    "trt_check",
    "trt_engine",
    "trt_golden",
    "trt_precision",
]
