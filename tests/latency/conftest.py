"""A machine on which nobody disturbs, and engines that take as long as a test says."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

import numpy as np
import pytest
from fakes.stopwatches import Clockwork, Host

from pytest_trt.latency import _answer as comparing
from pytest_trt.latency import check as keeper
from pytest_trt.latency._machine import Machine
from pytest_trt.latency._rounds import in_rounds, interleave
from pytest_trt.latency._telemetry import Telemetry

if TYPE_CHECKING:
    from collections.abc import Callable


@pytest.fixture
def quiet(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """A machine of this name, on which nobody disturbs; to be called with what does."""

    def tell(*sentences: str, name: str = "one") -> None:
        monkeypatch.setattr(keeper, "machine_of", lambda _: Machine({"gpu": name}, {"driver": "1"}))
        monkeypatch.setattr(keeper, "telemetry_of", lambda _: Telemetry())
        monkeypatch.setattr(keeper, "disturbances", lambda *_: sentences)

    tell()
    return tell


@pytest.fixture
def engine(monkeypatch: pytest.MonkeyPatch) -> Callable[[float, float], None]:
    """Have the engine, which is opened first, and its baseline take so many seconds, another time for each opening."""

    def take(candidate: float, baseline: float = 1e-3, noise: float = 0.01, wander: float = 0.0) -> None:
        under_test: list[object] = []
        seeds, draw, host = iter(range(1000)), np.random.default_rng(0), Host()

        def opened(of: object, *_: object) -> Clockwork:
            seconds = candidate if of is under_test[-1] else baseline
            wandered = seconds * float(np.exp(wander * draw.standard_normal()))
            return Clockwork(wandered, noise, seed=next(seeds), host=host)

        def opened_first(of: object, *_: object) -> Clockwork:
            under_test.append(of)
            return opened(of)

        monkeypatch.setattr(keeper, "stopwatch_of", opened_first)
        monkeypatch.setattr(comparing, "stopwatch_of", opened)
        # what takes turns does so for as long as the stopwatches tell, and not for seconds of this process
        monkeypatch.setattr(comparing, "in_rounds", partial(in_rounds, clock=host))
        monkeypatch.setattr(keeper, "interleave", partial(interleave, clock=host))

    take(1e-3)
    return take
