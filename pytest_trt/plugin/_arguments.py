"""Arguments: what pytest is made to collect beyond its own, and what is refused at once."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from pytest_trt.case.case_file import files_of, has_cases
from pytest_trt.errors import SpecError
from pytest_trt.plugin import settings

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

__all__ = ["add_root_cases", "is_case_file", "prepare_options"]


def prepare_options(config: pytest.Config) -> None:
    """Refuse what can't be done, collect the named models, or else the root's cases beside ``testpaths``.

    Raises:
        UsageError: a word of the ini file is not known, a model is not there, or goldens would be written in CI.
    """
    try:
        settings.validate(config)
    except SpecError as error:
        raise pytest.UsageError(str(error)) from error
    if settings.update_golden(config):
        _refuse_update(config)
    if settings.build_only(config):
        _refuse_disarmed(config)
    # xdist's workers do this for themselves: they are given the words of the command line, not config.args
    named = config.args_source is pytest.Config.ArgsSource.ARGS
    models = [str(path) for path in _onnx_files(config)]
    if models and settings.models_alone(config):
        config.args = [*(config.args if named else []), *models]
    elif not named:
        config.args = [*config.args, *models]
        add_root_cases(config)


def _refuse_disarmed(config: pytest.Config) -> None:
    """A gate that is told once and for all to judge nothing would be green for ever."""
    typed = [str(word) for word in config.invocation_params.args]
    worker = hasattr(config, "workerinput")  # is told what was typed for its controller
    if "--trt-build-only" not in typed and not worker:
        raise pytest.UsageError("--trt-build-only judges nothing, so it is typed for a run, and kept nowhere else.")
    if "--trt-require-engine" in typed:
        raise pytest.UsageError(
            "--trt-require-engine asks for a judgement on an engine, and --trt-build-only judges nothing: leave one of"
            " them out."
        )


def add_root_cases(config: pytest.Config) -> None:
    """Files of cases in the root folder are collected too where ``testpaths`` names only folders below it."""
    if config.args_source is pytest.Config.ArgsSource.TESTPATHS:
        found = [str(path) for path in files_of(config.rootpath)]
        config.args = [*config.args, *(path for path in found if path not in config.args)]


def is_case_file(path: Path, config: pytest.Config) -> bool:
    """Whether a file becomes items: one that holds cases, or a model that was named."""
    if path.suffix == ".toml":
        return has_cases(path)
    return any(path == named or named in path.parents for named in settings.models(config))


def _refuse_update(config: pytest.Config) -> None:
    from pytest_trt.golden.create import in_ci

    if in_ci():
        raise pytest.UsageError(
            "--trt-update-golden is refused where CI is set: a gate that writes what it checks passes always."
            " Make goldens on your machine, look at them and commit them."
        )
    if config.getoption("numprocesses", None) or config.getoption("dist", "no") != "no":
        raise pytest.UsageError(
            "--trt-update-golden is refused under xdist, whose workers would overwrite each other: drop -n."
        )


def _onnx_files(config: pytest.Config) -> Iterator[Path]:
    for path in settings.models(config):
        found = sorted(path.rglob("*.onnx")) if path.is_dir() else [path]
        if not found:
            raise pytest.UsageError(f"--trt-model: no .onnx file in the folder {path}.")
        for file in found:
            _require_model(file)
            yield file


def _require_model(path: Path) -> None:
    if path.suffix != ".onnx":
        raise pytest.UsageError(f"--trt-model: {path} is neither a folder nor an .onnx file.")
    if not path.exists():
        raise pytest.UsageError(f"--trt-model: there is no file {path}.")
    if "[" in str(path) or "::" in str(path):
        raise pytest.UsageError(f"--trt-model: pytest can't name {path}, whose path holds '[' or '::': rename it.")
