"""Entry point: what a case names as ``module:attribute``, a torch factory or a data function."""

from __future__ import annotations

import hashlib
import importlib
import importlib.util
import sys
import traceback
from typing import TYPE_CHECKING, Any

from pytest_trt.errors import CaseError

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path
    from types import ModuleType

__all__ = ["blame", "is_reference", "locate"]


def is_reference(text: str) -> bool:
    """Whether this reads ``module:attribute`` rather than as a file (``C:\\x.npz`` is a file)."""
    module, colon, attribute = text.rpartition(":")
    return bool(colon) and attribute.isidentifier() and all(p.isidentifier() for p in module.split("."))


def locate(reference: str, base: Path, field: str) -> Callable[..., Any]:
    """The callable that ``reference`` names, looked for in ``base`` first, then where Python looks.

    A file beside the case is loaded under a name of its own, so that two cases in two folders may each
    have their ``model.py``.

    Args:
        reference: ``package.module:attribute``.
        base: the case's folder.
        field: the case's key, for messages.

    Raises:
        CaseError: the module or attribute is missing, is not callable, or fails on import.
    """
    name, _, attribute = reference.rpartition(":")
    try:
        module = _module(name, base)
    except (Exception, SystemExit) as error:
        raise CaseError(
            f"{field} = {reference!r}: importing {name!r} (from {base} or the Python path) raised {blame(error)}"
        ) from error
    found = getattr(module, attribute, None)
    if not callable(found):
        what = "has no" if found is None else "has a"
        raise CaseError(
            f"{field} = {reference!r}: module {name!r} {what} {attribute!r}"
            f"{'' if found is None else ' that is not callable'}."
        )
    return found  # type: ignore[no-any-return]


def blame(error: BaseException) -> str:
    """One line: what was raised, by which line of whose file."""
    frames = traceback.extract_tb(error.__traceback__)
    where = f" ({frames[-1].filename}:{frames[-1].lineno})" if frames else ""
    text = " ".join(str(error).split())
    return f"{type(error).__name__}: {text}{where}"


def _module(name: str, base: Path) -> ModuleType:
    file = base.joinpath(*name.split(".")).with_suffix(".py")
    sys.path.insert(0, str(base))
    try:
        return _from_file(name, file) if file.is_file() else importlib.import_module(name)
    finally:
        sys.path.remove(str(base))


def _from_file(name: str, file: Path) -> ModuleType:
    if (file.parent / "__init__.py").is_file():
        return importlib.import_module(name)
    own = f"_pytest_trt_{hashlib.sha256(str(file.resolve()).encode()).hexdigest()[:12]}_{file.stem}"
    if own in sys.modules:
        return sys.modules[own]
    spec = importlib.util.spec_from_file_location(own, file)
    if spec is None or spec.loader is None:
        raise ImportError(f"{file} is not a Python module")
    module = importlib.util.module_from_spec(spec)
    sys.modules[own] = module
    try:
        spec.loader.exec_module(module)
    except BaseException:
        del sys.modules[own]
        raise
    return module
