"""Arguments: what pytest is made to collect beyond its own, and what is refused at once."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from pytest_trt import settings
from pytest_trt.errors import SpecError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

__all__ = ["add_root_cases", "has_cases", "is_case_file", "prepare_options"]


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
        _refuse_in_ci()
    if hasattr(config, "workerinput"):
        return  # one of xdist's workers is given the controller's arguments
    models = [str(path) for path in _onnx_files(config)]
    if models:
        named = config.args_source is pytest.Config.ArgsSource.ARGS
        config.args = [*(config.args if named else []), *models]
    elif config.args_source is pytest.Config.ArgsSource.TESTPATHS:
        add_root_cases(config)


def add_root_cases(config: pytest.Config) -> None:
    """Files of cases in the root folder are collected too where ``testpaths`` names only folders below it."""
    found = [str(path) for path in sorted(config.rootpath.glob("*.toml")) if has_cases(path)]
    config.args = [*config.args, *(path for path in found if path not in config.args)]


def is_case_file(path: Path, config: pytest.Config) -> bool:
    """Whether a file becomes items: one that holds cases, or a model that was named."""
    if path.suffix == ".toml":
        return has_cases(path)
    return any(path == named or named in path.parents for named in settings.models(config))


def has_cases(path: Path) -> bool:
    """Whether the file is one that holds cases."""
    if path.name == "pyproject.toml":
        try:
            return b"tool.pytest-trt" in path.read_bytes()
        except OSError:
            return False
    return path.name == "trt.toml" or path.name.endswith(".trt.toml")


def _refuse_in_ci() -> None:
    import os

    if os.environ.get("CI", "").lower() not in ("", "0", "false"):
        raise pytest.UsageError(
            "--trt-update-golden is refused where CI is set: a gate that writes what it checks passes always."
            " Make goldens on your machine, look at them and commit them."
        )


def _onnx_files(config: pytest.Config) -> Iterator[Path]:
    for path in settings.models(config):
        if path.is_dir():
            files = sorted(path.rglob("*.onnx"))
            if not files:
                raise pytest.UsageError(f"--trt-model: no .onnx file in the folder {path}.")
            yield from files
        elif path.suffix != ".onnx":
            raise pytest.UsageError(f"--trt-model: {path} is neither a folder nor an .onnx file.")
        elif not path.exists():
            raise pytest.UsageError(f"--trt-model: there is no file {path}.")
        else:
            yield path
