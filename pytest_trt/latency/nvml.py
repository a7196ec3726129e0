"""NVML: the one door to it, where every question may stay without an answer."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from types import ModuleType

__all__ = ["Nvml", "open_nvml"]


@dataclass(frozen=True, eq=False)
class Nvml:
    """One GPU as NVML knows it; with MIG the whole GPU, which alone has clocks.

    Attributes:
        module: pynvml.
        handle: of the GPU.
    """

    module: ModuleType
    handle: Any

    def ask(self, *names: str, of: tuple[Any, ...] = ()) -> Any:
        """The answer of the first of these functions that this release has; None where it is not supported or allowed.

        Args:
            names: of ``nvmlDevice...`` functions, newest first.
            of: arguments after the handle.
        """
        return self._answer(names, (self.handle, *of))

    def ask_system(self, name: str) -> Any:
        """The answer of a ``nvmlSystem...`` function."""
        return self._answer((name,), ())

    def constant(self, name: str) -> Any:
        """A number of pynvml by its name; None where this release has it not."""
        return getattr(self.module, name, None)

    def _answer(self, names: tuple[str, ...], arguments: tuple[Any, ...]) -> Any:
        for name in names:
            function = getattr(self.module, name, None)
            if function is None or None in arguments:
                continue
            try:
                return function(*arguments)
            except self.module.NVMLError:  # not supported, no permission, not in this driver
                continue
        return None


def open_nvml(bus_id: str) -> Nvml | str:
    """NVML for the GPU at this PCI bus id, or a sentence that says why it can't be asked.

    Indices are no help: NVML counts otherwise than CUDA, and knows nothing of CUDA_VISIBLE_DEVICES.
    """
    try:
        import pynvml
    except ImportError as error:
        return (
            f"nvidia-ml-py can't be imported ({error}), so nothing is known of clocks, power and who else uses the GPU:"
            ' pip install "pytest-trt[latency]".'
        )
    try:
        pynvml.nvmlInit()
        return Nvml(pynvml, pynvml.nvmlDeviceGetHandleByPciBusId(bus_id))
    except pynvml.NVMLError as error:
        return f"NVML does not tell of the GPU at {bus_id} ({error}): nothing is known of its clocks, power and users."
