"""What the extra ``latency`` brings, imported when it is used, and a message where it is not installed."""

from __future__ import annotations

import importlib
from typing import Any

from pytest_trt.errors import BackendError

__all__ = ["imported"]


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
