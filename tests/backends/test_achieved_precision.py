from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import pytest

from pytest_trt.backends.achieved_precision import require_honoured
from pytest_trt.backends.backend import Layer
from pytest_trt.errors import PrecisionNotHonoured
from pytest_trt.precision import Precision

if TYPE_CHECKING:
    from collections.abc import Mapping


@dataclass(frozen=True)
class Told:
    """An engine that tells these layers."""

    told: tuple[Layer, ...]
    precision: Precision = Precision.FP32
    backend: str = "tensorrt"
    simulated: bool = False
    facts: Mapping[str, Any] = field(default_factory=dict)
    warnings: tuple[str, ...] = ()

    def layers(self) -> tuple[Layer, ...]:
        return self.told

    def run(self, inputs: Any, *, on_device: bool = False) -> Any:
        raise NotImplementedError


def conv(precision: str) -> Layer:
    return Layer("c", "conv", precision=precision, computes=True)


def judged(asked: str, *layers: Layer, least: float = 0.5) -> None:
    require_honoured(Told(layers), asked, least, builds_engines=True)


def test_half_of_the_compute_layers_is_enough_and_less_is_not() -> None:
    judged("int8", conv("int8"), conv("fp32"))
    with pytest.raises(PrecisionNotHonoured, match="1 of 3 compute layers in int8"):
        judged("int8", conv("int8"), conv("fp32"), conv("fp16"))


def test_layers_that_were_to_stay_in_fp32_do_not_count() -> None:
    kept = replace(conv("fp32"), kept=True)

    judged("int8", conv("int8"), kept, kept)
    with pytest.raises(PrecisionNotHonoured, match="1 of 3 compute layers in int8"):
        judged("int8", conv("int8"), conv("fp32"), conv("fp32"), kept)


def test_layers_that_do_not_tell_are_not_honoured() -> None:
    with pytest.raises(PrecisionNotHonoured, match="1 of 20"):
        judged("int8", conv("int8"), *[conv("unknown")] * 19)


@pytest.mark.parametrize("asked", ["int8", "fp16", "bf16", "fp8"])
@pytest.mark.parametrize("layers", [(), (Layer("r", "relu", precision="fp32"),), (conv("unknown"),)])
def test_an_engine_that_shows_no_compute_layer_proves_nothing(asked: str, layers: tuple[Layer, ...]) -> None:
    with pytest.raises(PrecisionNotHonoured, match="does not tell the precision of its compute layers"):
        judged(asked, *layers)


def test_an_engine_without_compute_layers_is_fp32_where_nothing_says_otherwise() -> None:
    judged("fp32", Layer("r", "relu", precision="fp32"))


@pytest.mark.parametrize("layers", [(), (conv("unknown"),), (conv("tf32"),)])
def test_fp32_is_no_exception(layers: tuple[Layer, ...]) -> None:
    with pytest.raises(PrecisionNotHonoured):
        judged("fp32", *layers)


def test_tf32_may_keep_layers_in_fp32_but_not_all_of_them() -> None:
    judged("tf32", conv("tf32"), conv("fp32"), conv("fp32"))
    with pytest.raises(PrecisionNotHonoured, match="and one in tf32"):
        judged("tf32", conv("fp32"))


@pytest.mark.parametrize("coarser", ["int8", "fp16"])
def test_layers_coarser_than_tf32_count_against_it(coarser: str) -> None:
    with pytest.raises(PrecisionNotHonoured, match="1 of 4"):
        judged("tf32", conv("tf32"), *[conv(coarser)] * 3)


def test_a_share_of_nothing_accepts_anything() -> None:
    judged("int8", least=0)
