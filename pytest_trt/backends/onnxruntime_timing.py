"""onnxruntime, timed by the host's clock: around its run, with inputs and outputs on its GPU where it has one."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

from pytest_trt.errors import BackendError
from pytest_trt.latency.host import HostStopwatch, batch_of, shapes_of
from pytest_trt.session import require_onnxruntime

if TYPE_CHECKING:
    from pytest_trt.feeds import Arrays
    from pytest_trt.latency.samples import Timing

__all__ = ["session_stopwatch"]

_COPIES = (
    "what is timed is session.run by the host's clock: copies to the GPU and back are part of it, and so is"
    " onnxruntime's own work."
)
_BOUND = (
    "what is timed is session.run_with_iobinding by the host's clock, inputs and outputs on the GPU: onnxruntime's own"
    " work and the wait for the GPU are part of it."
)


def session_stopwatch(session: Any, feeds: Arrays, what: str, timing: Timing, device: int | None) -> HostStopwatch:
    """A session with one run's inputs in place, run once.

    Args:
        session: onnxruntime's.
        feeds: one run's inputs, as the session takes them.
        what: what messages call it.
        timing: whether copies are part of what is timed.
        device: the GPU that it runs on; None for the CPU.

    Raises:
        BackendError: onnxruntime fails.
    """
    names = [output.name for output in session.get_outputs()]
    bound = device is not None and not timing.transfers
    try:
        infer = _bound(session, names, feeds, device or 0) if bound else partial(session.run, names, feeds)
        infer()
    except Exception as error:  # onnxruntime's exceptions share no base but Exception
        raise BackendError(f"{what} fails while it is prepared: {type(error).__name__}: {error}") from error
    notes = () if device is None else (_BOUND,) if bound else (_COPIES,)
    # as with copies to a GPU, whatever is done on the way counts
    return HostStopwatch(
        infer, what, batch_of(feeds), shapes_of(feeds), notes=notes, transfers=device is not None and not bound
    )


def _bound(session: Any, names: list[str], feeds: Arrays, device: int) -> Any:
    values = require_onnxruntime().OrtValue
    binding = session.io_binding()
    for name, value in feeds.items():
        binding.bind_ortvalue_input(name, values.ortvalue_from_numpy(value, "cuda", device))
    for name in names:
        binding.bind_output(name, "cuda", device)
    return partial(session.run_with_iobinding, binding)
