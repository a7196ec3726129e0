"""Progress of a build: TensorRT's own monitor where the release has one, else what is being built."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

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
    interrupts: list[KeyboardInterrupt] = []
    if hasattr(trt, "IProgressMonitor"):
        config.progress_monitor = _new_monitor(trt, tell, title, interrupts)
    try:
        yield
    finally:
        tell("", None)
    if interrupts:
        raise interrupts[0]


def _new_monitor(
    trt: ModuleType, tell: Callable[[str, float | None], None], title: str, interrupts: list[KeyboardInterrupt]
) -> Any:
    class Monitor(trt.IProgressMonitor):  # type: ignore[misc, name-defined]
        def __init__(self) -> None:
            trt.IProgressMonitor.__init__(self)
            self.steps: dict[str, int] = {}

        def phase_start(self, phase_name: str, _parent_phase: str | None, num_steps: int) -> None:
            self.steps[phase_name] = num_steps

        def step_complete(self, phase_name: str, step: int) -> bool:
            total = self.steps.get(phase_name, 0)
            try:
                tell(f"{title}: {phase_name}", (step + 1) / total if total else None)
            except KeyboardInterrupt as error:  # an exception would be lost on its way through the builder
                interrupts.append(error)
            return not interrupts

        def phase_finish(self, phase_name: str) -> None:
            self.steps.pop(phase_name, None)

    return Monitor()
