"""Dynamic ranges on a network of the fake tensorrt."""

from __future__ import annotations

import warnings
from typing import Any

import networks
import pytest
from fakes.tensorrt import install

from pytest_trt.backends.tensorrt.weak_typing import ranges_of_network, set_ranges
from pytest_trt.errors import BackendError, DataError
from pytest_trt.ranges.amax import select

WEAK, STRONG = ("8.6", "10.16"), ("11.4", "rtx-1.7")


def parsed(monkeypatch: pytest.MonkeyPatch, release: str) -> Any:
    trt, _ = install(monkeypatch, release)
    logger = trt.Logger()
    flags = 1 << int(trt.NetworkDefinitionCreationFlag.EXPLICIT_BATCH) if release == "8.6" else 0
    network = trt.Builder(logger).create_network(flags)
    assert trt.OnnxParser(network, logger).parse(networks.convolutional().SerializeToString())
    return network


@pytest.mark.parametrize("release", WEAK)
def test_ranges_that_were_set_are_read_again(release: str, monkeypatch: pytest.MonkeyPatch) -> None:
    network = parsed(monkeypatch, release)

    without = set_ranges(network, {"x": 2.5, "r1": 1.5, "w1": 3.0, "elsewhere": 1.0})
    found = ranges_of_network(network, "network")

    assert found.amax == {"x": 2.5, "r1": 1.5}
    assert {"c1", "f", "logits"} <= set(without)
    assert not {"x", "r1"} & set(without)
    assert select(found, ["x"], ["x", "r1"]).amax == {"x": 2.5}


@pytest.mark.parametrize("release", WEAK)
def test_of_both_ends_the_larger_counts_and_a_dead_tensor_stands_apart(
    release: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    network = parsed(monkeypatch, release)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        network.get_input(0).dynamic_range = (-3.0, 1.0)
        network.get_layer(0).get_output(0).dynamic_range = (0.0, 0.0)

    found = ranges_of_network(network, "network")

    assert (found.amax, found.constants) == ({"x": 3.0}, ("c1",))


@pytest.mark.parametrize(("low", "high"), [(float("nan"), 1.0), (-1.0, float("nan")), (-float("inf"), 1.0)])
def test_ends_that_are_no_numbers_are_refused(low: float, high: float, monkeypatch: pytest.MonkeyPatch) -> None:
    network = parsed(monkeypatch, "8.6")
    network.get_input(0).dynamic_range = (low, high)

    with pytest.raises(DataError, match=r"network: the range of 'x' is (NaN|infinite)"):
        ranges_of_network(network, "network")


def test_a_network_without_ranges_has_none(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(DataError, match="no tensor of the network has a dynamic range"):
        ranges_of_network(parsed(monkeypatch, "8.6"), "network")


def test_a_tensor_that_is_always_zero_gets_a_range_in_which_zero_stays_zero(monkeypatch: pytest.MonkeyPatch) -> None:
    network = parsed(monkeypatch, "8.6")

    set_ranges(network, {"x": 0.0})

    assert ranges_of_network(network, "network").amax == {"x": 1.0}


@pytest.mark.parametrize("bound", [float("nan"), float("inf"), -1.0, 4e38])
def test_a_range_that_is_no_float32_is_refused(bound: float, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(BackendError, match=r"no dynamic range of .* for tensor 'x'"):
        set_ranges(parsed(monkeypatch, "8.6"), {"x": bound})


@pytest.mark.parametrize("release", STRONG)
def test_a_release_without_dynamic_ranges_is_told_with_the_way_out(
    release: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    network = parsed(monkeypatch, release)

    with pytest.raises(BackendError, match=r"has no dynamic ranges .* Lower it with the ranges"):
        set_ranges(network, {"x": 1.0})
    with pytest.raises(BackendError, match="has no dynamic ranges"):
        ranges_of_network(network, "network")
