"""Log: what TensorRT says; errors of building and loading appear nowhere else; and how far a build is."""

from __future__ import annotations

import signal
import threading
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from types import ModuleType

    import tensorrt

    from pytest_trt.backends.recipe import Recipe

__all__ = ["Heard", "caught", "guarded", "heard", "interruptible", "logger_of", "monitor", "raise_caught"]


@dataclass(frozen=True, eq=False)
class Heard:
    """What was said in a while: lists that grow until it is over."""

    errors: list[str]
    warnings: list[str]

    def told(self, what: str) -> str:
        """The error lines after what went wrong, or that there were none."""
        lines = "\n".join(f"  {line}" for line in dict.fromkeys(self.errors))
        return f"{what}. TensorRT says:\n{lines}" if lines else f"{what}, and TensorRT says nothing about why."


caught: list[BaseException] = []
"""What was raised in callbacks: on its way through TensorRT an exception would be lost, a Ctrl-C as well."""


def raise_caught() -> None:
    """Raise the first that callbacks could not."""
    found, caught[:] = list(caught), []
    if found:
        raise found[0]


@contextmanager
def interruptible() -> Iterator[None]:
    """Note a Ctrl-C, to be raised afterwards: Python would raise it in the next callback, where it would be lost.

    Elsewhere than in the main thread nothing is done, since signals do not come there.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGINT, lambda *_: caught.append(KeyboardInterrupt()))
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


@contextmanager
def guarded() -> Iterator[None]:
    """Keep what is raised in a callback for :func:`raise_caught`."""
    try:
        yield
    except BaseException as error:
        caught.append(error)


_loggers: dict[int, Any] = {}
_listening: list[tuple[int, Heard]] = []


def logger_of(trt: ModuleType) -> tensorrt.ILogger:
    """The one logger of the process: TensorRT keeps the first that it is given, whatever others come later."""
    if id(trt) not in _loggers:
        _loggers[id(trt)] = _new_logger(trt)
    logger: tensorrt.ILogger = _loggers[id(trt)]
    return logger


@contextmanager
def heard(trt: ModuleType, *, alone: bool = False) -> Iterator[Heard]:
    """Listen to warnings and errors; ``alone`` keeps them from those who listen already."""
    before = list(_listening)
    if not before:
        caught.clear()
    said = Heard([], [])
    _listening[:] = [*([] if alone else before), (id(trt), said)]
    try:
        yield said
    finally:
        _listening[:] = before
    if not before:
        raise_caught()


def _new_logger(trt: ModuleType) -> Any:
    errors = {int(trt.ILogger.Severity.ERROR), int(trt.ILogger.Severity.INTERNAL_ERROR)}
    warning = int(trt.ILogger.Severity.WARNING)

    class Log(trt.ILogger):  # type: ignore[misc, name-defined]
        def __init__(self) -> None:
            trt.ILogger.__init__(self)

        def log(self, severity: Any, text: str) -> None:
            with guarded():
                for key, listener in list(_listening):
                    if key == id(trt) and int(severity) in errors:
                        listener.errors.append(text)
                    elif key == id(trt) and int(severity) == warning:
                        listener.warnings.append(text)

    return Log()


@contextmanager
def monitor(trt: ModuleType, config: tensorrt.IBuilderConfig, recipe: Recipe) -> Iterator[None]:
    """Tell how far the build is, where somebody watches; nothing is left on the line afterwards."""
    tell = recipe.progress
    if tell is None:
        yield
        return
    title = f"building {recipe.model.source} at {recipe.precision}"
    tell(title, None)
    if hasattr(trt, "IProgressMonitor"):
        config.progress_monitor = _new_monitor(trt, tell, title)
    try:
        yield
    finally:
        tell("", None)


def _new_monitor(trt: ModuleType, tell: Callable[[str, float | None], None], title: str) -> Any:
    class Monitor(trt.IProgressMonitor):  # type: ignore[misc, name-defined]
        def __init__(self) -> None:
            trt.IProgressMonitor.__init__(self)
            self.steps: dict[str, int] = {}

        def phase_start(self, phase_name: str, _parent_phase: str | None, num_steps: int) -> None:
            with guarded():
                self.steps[phase_name] = num_steps

        def step_complete(self, phase_name: str, step: int) -> bool:
            with guarded(), suppress(OSError):  # a terminal that is closed stops no build
                total = self.steps.get(phase_name, 0)
                tell(f"{title}: {phase_name}", (step + 1) / total if total else None)
            return not caught

        def phase_finish(self, phase_name: str) -> None:
            with guarded():
                self.steps.pop(phase_name, None)

    return Monitor()
