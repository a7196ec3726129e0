from __future__ import annotations

import itertools
import math
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import networks
import numpy as np
import onnx
import pytest
from onnx import helper

from pytest_trt import Ranges, lower
from pytest_trt.calibration.calibration import calibrate
from pytest_trt.errors import LoweringError
from pytest_trt.evidence._pairing import paired
from pytest_trt.evidence.localise import Located, first_nonfinite, lines_of, localise
from pytest_trt.lowering.casts import fp32_ends
from pytest_trt.lowering.qdq import quantised_activations
from pytest_trt.model.model import Model, checked
from pytest_trt.model.onnx_session import open_session, run
from pytest_trt.plugin.settings import localise_always

if TYPE_CHECKING:
    from onnx import ModelProto

FLOAT = networks.FLOAT
RUNS = [{"x": networks.images()}]


@pytest.fixture
def net() -> Model:
    return checked(networks.convolutional(), "net")


def ranges(net: Model) -> dict[str, float]:
    return dict(calibrate(net, quantised_activations(net.proto), RUNS, "images").amax)


def int8(net: Model, **spoiled: float) -> Model:
    """int8 with its right ranges, those of some tensors multiplied."""
    amax = ranges(net)
    return lower(net, "int8", Ranges({**amax, **{name: amax[name] * by for name, by in spoiled.items()}}))


def test_nodes_without_a_name_are_told_by_their_tensors() -> None:
    proto = networks.convolutional()
    for node in proto.graph.node:
        node.name = ""
    net = checked(proto, "net")

    found = localise(net, lower(net, "fp16"), RUNS)

    assert {one.op for one in found} >= {"Conv", "Relu"}


def by_name(located: tuple[Located, ...]) -> dict[str, Located]:
    return {one.tensor: one for one in located}


def every_tensor(net: Model, proto: ModelProto, arrays: dict[str, Any]) -> dict[str, Any]:
    names = [name for node in net.proto.graph.node for name in node.output]
    copy = onnx.ModelProto.FromString(proto.SerializeToString())
    del copy.graph.output[:]
    copy.graph.output.extend(onnx.ValueInfoProto(name=name) for name in names)
    return run(open_session(copy, "exposed"), net, arrays)


def decibel(signal: Any, error: Any) -> float:
    return float(10 * np.log10((signal.astype(np.float64) ** 2).sum() / (error.astype(np.float64) ** 2).sum()))


def test_every_float_tensor_is_compared_under_its_own_name(net: Model) -> None:
    found = by_name(localise(net, int8(net), RUNS))

    # w1, w2 and w3 are weights
    assert set(found) == {"x", "c1", "r1", "c2", "sum", "r2", "p", "f", "logits"}
    assert (found["r1"].node, found["r1"].op, found["r1"].readers) == ("relu1", "Relu", ("conv2", "add"))
    assert (found["x"].node, found["x"].place, found["logits"].readers) == ("", 0, ())


def test_cumulative_figures_are_those_of_two_separate_runs(net: Model) -> None:
    low = int8(net)
    exact, lowered = (every_tensor(net, model.proto, RUNS[0]) for model in (net, low))
    found = by_name(localise(net, low, RUNS))

    for name, array in exact.items():
        assert found[name].cumulative_db == pytest.approx(decibel(array, lowered[name] - array), abs=0.01)


def test_local_figures_are_those_of_the_fp32_tensor_and_its_scale(net: Model) -> None:
    step, x = ranges(net)["x"] / 127, RUNS[0]["x"]
    found = by_name(localise(net, int8(net), RUNS))

    assert found["x"].local_db == pytest.approx(decibel(x, x - np.rint(x / step) * step), abs=0.05)
    assert found["x"].cumulative_db == math.inf
    assert found["c1"].local_db is None


@pytest.mark.parametrize("tensor", ["x", "r1", "f"])
@pytest.mark.parametrize("by", [0.03, 0.1, 20.0])
def test_a_tensor_of_a_spoiled_range_comes_first(net: Model, tensor: str, by: float) -> None:
    located = localise(net, int8(net, **{tensor: by}), RUNS)

    assert located[0].tensor == tensor
    assert located[0].local_db is not None
    assert located[0].local_db < 24


def test_a_calibrated_model_has_no_tensor_of_bad_rounding(net: Model) -> None:
    assert all(one.local_db is None or one.local_db > 30 for one in localise(net, int8(net), RUNS))


def test_a_node_that_computes_something_else_comes_first_where_rounding_is_good(net: Model) -> None:
    low = int8(net)
    add = next(node for node in low.proto.graph.node if node.name == "add")
    add.op_type = "Sub"

    assert localise(net, low, RUNS)[0].node == "add"


def test_a_node_that_gives_another_shape_comes_first_where_rounding_is_good(net: Model) -> None:
    low = int8(net)
    conv = next(node for node in low.proto.graph.node if node.name == "conv1")
    del conv.attribute[:]
    located = localise(net, low, RUNS)

    assert (located[0].node, located[0].cumulative_db) == ("conv1", -math.inf)
    assert by_name(located)["logits"].cumulative_db < 25
    assert not any(one.nonfinite for one in located)


def test_samples_in_pieces_and_runs_give_the_same_figures(net: Model) -> None:
    low, x = int8(net), RUNS[0]["x"]
    whole = by_name(localise(net, low, RUNS))

    for found in (localise(net, low, RUNS, batch=3), localise(net, low, [{"x": x[:2]}, {"x": x[2:]}])):
        for name, one in by_name(found).items():
            assert one.cumulative_db == pytest.approx(whole[name].cumulative_db, abs=0.01)


@pytest.mark.parametrize("precision", ["fp16", "bf16", "tf32", "fp8"])
def test_every_precision_that_is_simulated_can_be_localised(net: Model, precision: str) -> None:
    amax = Ranges(ranges(net)) if precision == "fp8" else None
    low = lower(net, precision, amax)
    found = by_name(localise(net, Model(fp32_ends(low.proto), "net"), RUNS))

    assert 15 < found["logits"].cumulative_db < 90
    assert (found["x"].local_db is not None) == (precision != "tf32")


def test_the_two_models_are_left_as_they_were(net: Model) -> None:
    low = int8(net)
    before = net.sha256, low.sha256
    localise(net, low, RUNS)

    assert (checked(net.proto, "net").sha256, checked(low.proto, "low").sha256) == before


def overflowing() -> ModelProto:
    """x to y by way of 640000, which fp16 does not hold."""
    nodes = [
        helper.make_node("Mul", ["x", "large"], ["big"], "grow"),
        helper.make_node("Relu", ["big"], ["kept"], "relu"),
        helper.make_node("Mul", ["kept", "small"], ["y"], "shrink"),
    ]
    weights = {"large": np.float32(6e4), "small": np.float32(1e-4)}
    return networks.model(nodes, {"x": (FLOAT, ["N", 3])}, {"y": (FLOAT, ["N", 3])}, weights)


def test_the_first_tensor_that_overflows_in_fp16_comes_first() -> None:
    net = checked(overflowing(), "net")
    located = localise(net, lower(net, "fp16"), [{"x": np.full((2, 3), 10, np.float32)}])

    assert (located[0].tensor, located[0].went_bad, located[0].nonfinite_in_fp32) == ("big", True, False)
    assert located[0].local_db == -math.inf
    assert first_nonfinite(located) is located[0]
    assert [one.tensor for one in located if one.nonfinite] == ["big", "kept", "y"]
    assert lines_of(located)[0] == "NaN or infinity first in 'big' of Mul 'grow', read by 'relu', and not in fp32"


def test_a_nan_of_fp32_itself_is_told_as_such() -> None:
    net = checked(networks.with_weight(overflowing(), "large", lambda _: np.float32(np.nan)), "net")
    located = localise(net, net, [{"x": np.ones((2, 3), np.float32)}])
    first = first_nonfinite(located)

    assert first is not None
    assert (first.tensor, first.nonfinite_in_fp32, first.went_bad) == ("big", True, False)
    assert lines_of(located)[0].endswith("in fp32 already")


@pytest.mark.parametrize("mask", [-np.inf, np.finfo(np.float32).min])
def test_the_masks_of_attention_are_no_fault(mask: float) -> None:
    nodes = [
        helper.make_node("Where", ["seen", "zero", "mask"], ["m"], "where"),
        helper.make_node("Add", ["x", "m"], ["scores"], "add"),
        helper.make_node("Softmax", ["scores"], ["p"], "softmax"),
        helper.make_node("MatMul", ["p", "w"], ["y"], "head"),
    ]
    weights = {"zero": np.float32(0), "mask": np.float32(mask), "w": np.eye(3, dtype=np.float32)}
    inputs = {"x": (FLOAT, ["N", 3]), "seen": (onnx.TensorProto.BOOL, ["N", 3])}
    net = checked(networks.model(nodes, inputs, {"y": (FLOAT, ["N", 3])}, weights), "net")
    runs = [{"x": np.ones((1, 3), np.float32), "seen": np.array([[True, True, False]])}]
    found = by_name(localise(net, lower(net, "int8", Ranges({"p": 1.0})), runs))

    assert not any(one.went_bad for one in found.values())
    assert found["scores"].nonfinite == math.isinf(mask)
    assert found["scores"].cumulative_db == math.inf
    assert found["p"].local_db > 30  # type: ignore[operator]


def test_nodes_of_a_subgraph_that_reads_outer_tensors_are_set_apart_with_them() -> None:
    branches: dict[str, Any] = {
        f"{name}_branch": helper.make_graph(
            [helper.make_node(op, ["h"], [f"{name}_out"])], name, [], [onnx.ValueInfoProto(name=f"{name}_out")]
        )
        for name, op in (("then", "Relu"), ("else", "Neg"))
    }
    nodes = [
        helper.make_node("MatMul", ["x", "w"], ["h"], "first"),
        helper.make_node("If", ["yes"], ["g"], "choice", **branches),
        helper.make_node("MatMul", ["g", "w"], ["y"], "second"),
    ]
    weights = {"w": np.eye(3, dtype=np.float32), "yes": np.array(True)}
    net = checked(networks.model(nodes, {"x": (FLOAT, ["N", 3])}, {"y": (FLOAT, ["N", 3])}, weights), "net")
    runs = [{"x": np.linspace(-1, 1, 6, dtype=np.float32).reshape(2, 3)}]
    found = by_name(localise(net, lower(net, "int8", Ranges({"x": 1.0, "g": 1.0})), runs))

    assert set(found) == {"x", "h", "g", "y"}
    assert 30 < found["y"].cumulative_db < 70


def test_nodes_without_names_are_compared_under_their_tensors_names(net: Model) -> None:
    nameless = onnx.ModelProto.FromString(net.proto.SerializeToString())
    for node in nameless.graph.node:
        node.name = ""
    model = Model(nameless, "nameless")

    located = by_name(localise(model, Model(fp32_ends(nameless), "lowered"), RUNS))

    assert located["r1"].node == "r1"
    assert set(located) == set(by_name(localise(net, net, RUNS)))


def test_every_tensor_is_measured_before_the_next_node_runs(net: Model) -> None:
    pair = paired(net, int8(net))
    place = {name: number for number, node in enumerate(pair.model.proto.graph.node) for name in node.output}
    spans = [(place[tensor.name], place[tensor.error or ""]) for tensor in pair.tensors if tensor.node]

    assert all(made < following for (_, made), (following, _) in itertools.pairwise(spans))


@pytest.mark.parametrize(
    ("words", "ini", "wanted"), [([], "", False), (["--trt-localise"], "", True), ([], "trt_localise = true", True)]
)
def test_passed_cases_are_localised_where_the_option_or_its_ini_twin_says_so(
    pytester: pytest.Pytester, words: list[str], ini: str, wanted: bool
) -> None:
    pytester.makeini(f"[pytest]\n{ini}\n")

    assert localise_always(pytester.parseconfig(*words)) == wanted


def test_models_without_a_common_tensor_are_refused(net: Model) -> None:
    other = checked(overflowing(), "other")
    other.proto.graph.input[0].name = "other"
    other.proto.graph.node[0].input[0] = "other"

    with pytest.raises(LoweringError, match="no tensor name in common"):
        localise(net, other, RUNS)


def test_names_that_the_pair_would_give_are_not_taken_twice() -> None:
    proto = networks.convolutional()
    for node in proto.graph.node:
        node.input[:] = ["lowered:r1" if name == "r1" else name for name in node.input]
        node.output[:] = ["lowered:r1" if name == "r1" else name for name in node.output]
    odd = checked(proto, "odd")

    assert "lowered:r1" in by_name(localise(odd, int8(odd), RUNS))


def test_a_file_of_another_opset_is_compared_too(net: Model) -> None:
    newer = onnx.version_converter.convert_version(int8(net).proto, 21)

    assert localise(net, checked(newer, "newer"), RUNS)[0].cumulative_db > 20


def test_tensors_of_nothing_but_zeros_have_no_error() -> None:
    net = checked(networks.with_weight(networks.convolutional(), "w3", np.zeros_like), "net")
    net = checked(networks.with_weight(net.proto, "b3", np.zeros_like), "net")

    assert by_name(localise(net, int8(net), RUNS))["logits"].cumulative_db == math.inf


def test_located_is_plain_data(net: Model) -> None:
    assert set(asdict(localise(net, int8(net), RUNS)[0])) >= {"tensor", "node", "op", "readers", "local_db"}


def test_lines_name_tensor_node_readers_and_figures(net: Model) -> None:
    lines = lines_of(localise(net, int8(net, r1=0.03), RUNS), most=2)

    assert len(lines) == 2
    assert lines[0].startswith("'r1' of Relu 'relu1', read by 'conv2', 'add': rounding it leaves ")


@pytest.mark.parametrize("never", [float(np.finfo(np.float32).min), -1e9])
def test_what_a_mask_forbids_is_no_error_however_far_down_it_is_clamped(never: float) -> None:
    nodes = [
        helper.make_node("Mul", ["m", "never"], ["bias"], "mask"),
        helper.make_node("Add", ["x", "bias"], ["scores"], "masked"),
        helper.make_node("Softmax", ["scores"], ["p"], "softmax"),
    ]
    inputs = {"x": (FLOAT, ["N", 4]), "m": (FLOAT, ["N", 4])}
    net = networks.model(nodes, inputs, {"p": (FLOAT, ["N", 4])}, {"never": np.float32(never)})
    draw = np.random.default_rng(0)
    run = {
        "x": draw.standard_normal((6, 4)).astype(np.float32),
        "m": np.tile(np.array([0, 0, 1, 1], np.float32), (6, 1)),
    }

    found = by_name(localise(checked(net, "net"), checked(lower(net, "fp16"), "fp16"), [run]))

    assert min(found["bias"].cumulative_db, found["scores"].cumulative_db) > 40
    assert found["bias"].local_db is None or found["bias"].local_db > 40
