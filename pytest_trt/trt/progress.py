"""Progress of a build: TensorRT's own monitor where the release has one, else what is being built."""

from __future__ import annotations

from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any

from pytest_trt.trt.log import caught, guarded

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from types import ModuleType

    import tensorrt

    from pytest_trt.recipe import Recipe

__all__ = ["monitor"]


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
