"""Indices are judged by the values that they pick, lists of indices by their rows, and outputs that are named alone."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import networks
import numpy as np
import pytest
from onnx import TensorProto, helper, numpy_helper

from pytest_trt import Case, check
from pytest_trt.case.reference import subject_of
from pytest_trt.errors import CaseError, ExportMismatch, GoldenError, GoldenMismatch
from pytest_trt.evidence.hops import export_hops
from pytest_trt.evidence.judgement import Judgement, accept_hint, judge
from pytest_trt.golden.create import _require_same, create, update
from pytest_trt.golden.envelope import provable
from pytest_trt.golden.golden import read, write
from pytest_trt.golden.index_outputs import IndexOutputs, aligned, is_counted
from pytest_trt.model.model import Model
from pytest_trt.precision import Precision

if TYPE_CHECKING:
    from pathlib import Path

    import onnx

    from pytest_trt.findings.verdict import Verdict

FLOAT, INT64 = networks.FLOAT, TensorProto.INT64
CLASSES = 20


def twins(apart: float = 1e-4) -> np.ndarray:
    """Columns of which each has a twin that is nearly the same."""
    draw = np.random.default_rng(3)
    first = draw.standard_normal((8, CLASSES // 2)) / 3
    return np.concatenate([first, first + apart * draw.standard_normal(first.shape)], axis=1).astype(np.float32)


def topk(
    *after: onnx.NodeProto,
    output: str = "i",
    shape: tuple[Any, ...] = ("N", 3),
    kind: int = INT64,
    apart: float = 1e-4,
) -> Any:
    nodes = [
        helper.make_node("MatMul", ["x", "w"], ["s"], "fc"),
        helper.make_node("TopK", ["s", "k"], ["v", "i"], "topk"),
        *after,
    ]
    outputs: dict[str, Any] = {"v": (FLOAT, ["N", 3]), output: (kind, list(shape))}
    weights = {"w": twins(apart), "k": np.array([3]), "two": np.array([0, 2]), "flat": np.array([-1])}
    return networks.model(nodes, {"x": (FLOAT, ["N", 8])}, outputs, weights)


def where(threshold: float = 0.3) -> onnx.ModelProto:
    """Scores, and where they are over a threshold: as many rows as there are."""
    nodes = [
        helper.make_node("MatMul", ["x", "w"], ["s"], "fc"),
        helper.make_node("Greater", ["s", "t"], ["over"], "over"),
        helper.make_node("NonZero", ["over"], ["nz"], "nonzero"),
        helper.make_node("Transpose", ["nz"], ["where"], "turn", perm=[1, 0]),
        helper.make_node("GatherND", ["s", "where"], ["kept"], "pick"),
    ]
    outputs: dict[str, Any] = {"s": (FLOAT, ["N", CLASSES]), "where": (INT64, ["K", 2]), "kept": (FLOAT, ["K"])}
    weights = {"w": twins(), "t": np.float32(threshold)}
    return networks.model(nodes, {"x": (FLOAT, ["N", 8])}, outputs, weights)


def samples(count: int = 32) -> np.ndarray:
    return np.random.default_rng(4).standard_normal((count, 8)).astype(np.float32)


def case_of(proto: onnx.ModelProto, folder: Path, **told: Any) -> Case:
    networks.save(proto, folder / "net.onnx")
    np.savez(folder / "in.npz", x=samples())
    table = {"onnx": "net.onnx", "inputs": "in.npz", "calibration": "golden", **told}
    case = Case.from_table(table, folder, "trt.toml")
    update(case, folder / "golden")
    return case


def checked(case: Case, precision: str) -> Verdict:
    return check(case, precision, golden_dir=case.base / "golden")


def judged(case: Case, change: Any, precision: Precision = Precision.FP16) -> dict[str, Judgement]:
    """The judgements on fp32 outputs, changed."""
    golden = read(case.base / "golden" / "net.safetensors", "")
    outputs = {name: array.copy() for name, array in golden.outputs.items()}
    change(outputs)
    return {one.output: one for one in judge(subject_of(case, precision), golden, [outputs])}


def swap(name: str, first: Any, second: Any) -> Any:
    def change(outputs: dict[str, np.ndarray]) -> None:
        array = outputs[name]
        array[first], array[second] = array[second].copy(), array[first].copy()

    return change


@pytest.mark.parametrize("precision", ["fp32", "tf32", "fp16", "bf16", "int8", "fp8"])
def test_near_ties_pass_at_every_precision_by_a_bound_that_judges(precision: str, tmp_path: Path) -> None:
    verdict = checked(case_of(topk(), tmp_path), precision)

    assert verdict.verdict == "passed"
    assert {one.output: one.bound for one in verdict.judgements}["i"] <= 0.05  # type: ignore[operator]


def test_the_other_one_of_twins_is_a_near_tie_and_is_counted(tmp_path: Path) -> None:
    def other(outputs: dict[str, np.ndarray]) -> None:
        outputs["i"][:, :2] = outputs["i"][:, 1::-1]

    found = judged(case_of(topk(), tmp_path), other)["i"]

    assert not found.reasons
    assert found.near_ties == 64


def test_another_index_is_wrong(tmp_path: Path) -> None:
    found = judged(case_of(topk(), tmp_path), swap("i", (slice(None), 0), (slice(None), 2)))["i"]

    assert found.reasons
    assert found.error > 0.6


@pytest.mark.parametrize("precision", [Precision.FP16, Precision.BF16])
def test_loud_samples_open_no_near_ties_for_quiet_ones(tmp_path: Path, precision: Precision) -> None:
    case = case_of(topk(), tmp_path)
    x = samples()
    x[::8] *= 2000
    np.savez(tmp_path / "in.npz", x=x)
    update(case, tmp_path / "golden")

    def quiet(outputs: dict[str, np.ndarray]) -> None:
        outputs["i"][1::8] = (outputs["i"][1::8] + 5) % CLASSES

    assert judged(case, quiet, precision)["i"].reasons


def test_one_index_twice_is_wrong_though_its_value_is_near(tmp_path: Path) -> None:
    def twice(outputs: dict[str, np.ndarray]) -> None:
        outputs["i"][:, 1] = outputs["i"][:, 0]

    assert judged(case_of(topk(), tmp_path), twice)["i"].reasons


def test_an_index_that_there_is_not_is_wrong(tmp_path: Path) -> None:
    def beyond(outputs: dict[str, np.ndarray]) -> None:
        outputs["i"][:, 0] = CLASSES

    assert judged(case_of(topk(), tmp_path), beyond)["i"].reasons


@pytest.mark.parametrize(
    ("after", "shape", "kind"),
    [
        ([helper.make_node("Cast", ["i"], ["o"], to=TensorProto.INT32)], ("N", 3), TensorProto.INT32),
        ([helper.make_node("Cast", ["i"], ["o"], to=TensorProto.UINT8)], ("N", 3), TensorProto.UINT8),
        ([helper.make_node("Gather", ["i", "two"], ["o"], axis=1)], ("N", 2), INT64),
        ([helper.make_node("Transpose", ["i"], ["o"], perm=[1, 0])], (3, "N"), INT64),
        (
            [helper.make_node("Identity", ["i"], ["j"]), helper.make_node("Reshape", ["j", "flat"], ["o"])],
            ("M",),
            INT64,
        ),
    ],
    ids=["int32", "uint8", "gather", "transpose", "reshape"],
)
def test_indices_are_followed_through_what_carries_them(
    after: list[onnx.NodeProto], shape: tuple[Any, ...], kind: int, tmp_path: Path
) -> None:
    case = case_of(topk(*after, output="o", shape=shape, kind=kind), tmp_path)

    def other(outputs: dict[str, np.ndarray]) -> None:
        outputs["o"] = ((outputs["o"] + CLASSES // 2) % CLASSES).astype(outputs["o"].dtype)

    def wrong(outputs: dict[str, np.ndarray]) -> None:
        outputs["o"] = ((outputs["o"] + 1) % CLASSES).astype(outputs["o"].dtype)

    assert not judged(case, other)["o"].reasons
    assert judged(case, wrong)["o"].reasons


@pytest.mark.parametrize("keepdims", [0, 1])
@pytest.mark.parametrize("operator", ["ArgMax", "ArgMin"])
def test_a_map_of_classes_of_a_fixed_batch_is_judged_by_its_scores(
    operator: str, keepdims: int, tmp_path: Path
) -> None:
    w = np.random.default_rng(0).standard_normal((4, 2, 1, 1))
    w[2:] = w[:2] + 1e-4
    nodes = [
        helper.make_node("Conv", ["x", "w"], ["s"], "conv"),
        helper.make_node(operator, ["s"], ["a"], "best", axis=1, keepdims=keepdims),
    ]
    shape = [1, 1, 5, 5] if keepdims else [1, 5, 5]
    outputs = {"s": (FLOAT, [1, 4, 5, 5]), "a": (INT64, shape)}
    proto = networks.model(nodes, {"x": (FLOAT, [1, 2, 5, 5])}, outputs, {"w": w.astype(np.float32)})
    networks.save(proto, tmp_path / "net.onnx")
    table = {"onnx": "net.onnx", "samples": 4}
    case = Case.from_table(table, tmp_path, "trt.toml")
    update(case, tmp_path / "golden")

    def other(outputs: dict[str, np.ndarray]) -> None:
        outputs["a"] = (outputs["a"] + 2) % 4

    def wrong(outputs: dict[str, np.ndarray]) -> None:
        outputs["a"] = (outputs["a"] + 1) % 4

    assert not judged(case, other)["a"].reasons
    assert judged(case, wrong)["a"].reasons


def test_a_limit_of_the_users_own_counts_unequal_elements_as_they_are(tmp_path: Path) -> None:
    case = case_of(topk(), tmp_path, tolerance={"fp16": {"outputs": {"i": {"mismatch": 0.1}}}})

    def other(outputs: dict[str, np.ndarray]) -> None:
        outputs["i"][:, :2] = outputs["i"][:, 1::-1]

    found = judged(case, other)["i"]

    assert found.near_ties is None
    assert found.error == pytest.approx(2 / 3)
    assert found.reasons


def test_a_file_that_chooses_otherwise_in_fp32_fails_and_its_advice_lets_it_pass(tmp_path: Path) -> None:
    case = case_of(topk(), tmp_path)
    other = topk()
    w = twins()
    other.graph.initializer[0].CopyFrom(numpy_helper.from_array(np.concatenate([w[:, 10:], w[:, :10]], axis=1), "w"))
    networks.save(other, tmp_path / "other.onnx")
    deployed = replace(case, onnx="other.onnx", reference="net.onnx")

    verdict = checked(deployed, "fp16")
    [finding] = [one for one in verdict.findings if one.code == "TRT302"]
    advised = {"fp32": {"outputs": {"i": {"mismatch": 1.0}}}}

    assert verdict.verdict == "failed"
    assert "of its elements differ" in finding.message
    assert "tolerance.fp32 = { outputs.i = { mismatch = 1 } }" in finding.remedy
    accepted = Case.from_table(
        {"name": "net", "onnx": "other.onnx", "reference": "net.onnx", "inputs": "in.npz", "tolerance": advised},
        tmp_path,
        "trt.toml",
    )
    assert checked(accepted, "fp16").verdict == "passed"


def test_a_list_is_compared_by_its_rows() -> None:
    golden = np.array([[0, 1], [0, 4], [2, 2]])
    actual = np.array([[0, 1], [1, 1], [0, 4], [2, 2], [3, 0]])

    ours, theirs = aligned(actual, golden, 0)

    assert theirs.tolist() == [[0, 1], [0, 4], [2, 2], [-1, -1], [-1, -1]]
    assert ours.tolist() == [[0, 1], [0, 4], [2, 2], [1, 1], [3, 0]]


def test_a_list_that_lacks_rows_or_holds_none_differs_by_them() -> None:
    golden = np.array([[0, 1, 2], [5, 5, 5]])

    ours, theirs = aligned(golden[:, 1:], golden, 1)
    none, all_of_them = aligned(np.zeros((2, 0), np.int64), golden, 1)

    assert (ours != theirs).sum() == 2
    assert (none != all_of_them).all()
    assert aligned(golden, golden, 1)[0].tolist() == golden.tolist()


def test_more_rows_at_int8_are_judged_by_their_share(tmp_path: Path) -> None:
    case = case_of(where(), tmp_path, ignore_outputs=["kept"])

    verdict = checked(case, "int8")
    found = {one.output: one for one in verdict.judgements}

    assert verdict.verdict == "passed"
    assert found["where"].bound is not None
    assert found["where"].bound < 0.2


def test_a_list_of_other_rows_is_wrong(tmp_path: Path) -> None:
    case = case_of(where(), tmp_path, ignore_outputs=["kept"])

    def fewer(outputs: dict[str, np.ndarray]) -> None:
        outputs["where"] = outputs["where"][::2]

    assert judged(case, fewer)["where"].reasons


def test_floats_of_another_number_of_rows_are_refused_and_the_advice_works(tmp_path: Path) -> None:
    case = case_of(where(), tmp_path)

    def fewer(outputs: dict[str, np.ndarray]) -> None:
        outputs["kept"] = outputs["kept"][1:]

    with pytest.raises(GoldenMismatch, match=r"how many rows it has depends .* \(ignore_outputs = \[\"kept\"\]\)"):
        judged(case, fewer)
    assert "kept" not in judged(replace(case, ignore_outputs=("kept",)), fewer)


def test_what_finds_rows_is_known_further_on() -> None:
    assert is_counted(where(), "kept")
    assert not is_counted(where(), "s")
    assert IndexOutputs(Model(where(), "net")).lists.keys() == {"where"}


def test_only_outputs_that_are_named_are_judged_and_that_is_told(tmp_path: Path) -> None:
    case = case_of(topk(), tmp_path, outputs=["v"])

    verdict = checked(case, "fp16")

    assert verdict.verdict == "passed", verdict.message
    assert [one.output for one in verdict.judgements] == ["v"]
    assert verdict.unjudged == ("i",)


def test_an_output_that_is_left_out_may_be_anything(tmp_path: Path) -> None:
    case = case_of(topk(), tmp_path)
    ignoring = replace(case, ignore_outputs=("i",))
    wrong = swap("i", (slice(None), 0), (slice(None), 2))

    assert judged(case, wrong)["i"].reasons
    assert judged(ignoring, wrong).keys() == {"v"}


@pytest.mark.parametrize(
    ("told", "said"),
    [
        ({"outputs": ("y",)}, "outputs names 'y', which is no output of .*net.onnx: it has 'v', 'i'"),
        ({"ignore_outputs": ("y",)}, "ignore_outputs names 'y', which is no output"),
        ({"ignore_outputs": ("v", "i")}, "names every output of .*net.onnx, and nothing would be judged"),
        ({"outputs": ("i",)}, "none is of floats.*: judge one of 'v' too"),
        ({"class_output": "v", "ignore_outputs": ("v",)}, "none is of floats"),
    ],
)
def test_keys_that_do_not_fit_the_model_are_refused(told: dict[str, Any], said: str, tmp_path: Path) -> None:
    case = replace(case_of(topk(), tmp_path), **told)

    verdict = checked(case, "fp16")

    assert verdict.verdict == "error"
    with pytest.raises(CaseError, match=said):
        create(case)


def test_both_keys_at_once_are_refused() -> None:
    with pytest.raises(CaseError, match="`outputs` names what is judged, and `ignore_outputs` what is not: keep one"):
        Case(onnx="net.onnx", outputs=("v",), ignore_outputs=("i",))


def test_a_limit_on_an_output_that_is_left_out_is_refused(tmp_path: Path) -> None:
    told = {"ignore_outputs": ["i"], "tolerance": {"fp16": {"outputs": {"i": {"mismatch": 0.5}}}}}

    verdict = checked(case_of(topk(), tmp_path, **told), "fp16")

    assert verdict.verdict == "error"
    assert "judge it, or drop the limit" in verdict.message


def test_a_bound_that_takes_nine_in_ten_is_refused_and_the_others_stay() -> None:
    entries = {"v": {"error": 0.001, "bound": 0.003}, "i": {"error": 0.4, "bound": 1.01, "reach": 1.0}}

    kept, refused = provable({"int8": entries}, {}, {"v": 0.9})

    assert kept == {"int8": {"v": entries["v"]}}
    assert 'ignore_outputs = ["i"]' in refused["int8"]
    assert "tolerance.int8.outputs.i = { mismatch = ... }" in refused["int8"]


def test_a_bound_of_nearly_what_another_sample_has_wrong_is_refused() -> None:
    flags = {"flag": {"error": 0.2, "bound": 0.51, "reach": 0.5}}

    assert provable({"int8": flags}, {}, {})[0] == {}
    assert provable({"int8": {"flag": {**flags["flag"], "reach": 0.9}}}, {}, {})[0] != {}


def test_an_older_golden_whose_bound_takes_nine_in_ten_is_refused(tmp_path: Path) -> None:
    case = case_of(topk(), tmp_path)
    path = tmp_path / "golden" / "net.safetensors"
    golden = read(path, "")
    older = {**golden.envelope, "int8": {**golden.envelope["int8"], "i": {"error": 0.38, "bound": 0.955}}}
    write(replace(golden, envelope=older), path, "net")

    verdict = checked(case, "int8")

    assert verdict.verdict == "error"
    assert "which judges nothing" in verdict.message
    assert checked(replace(case, ignore_outputs=("i",)), "int8").verdict == "passed"


def test_a_golden_without_near_ties_is_judged_by_the_share_that_differs(tmp_path: Path) -> None:
    case = case_of(topk(), tmp_path)
    path = tmp_path / "golden" / "net.safetensors"
    golden = read(path, "")
    older = {**golden.envelope["fp16"], "i": {"error": 0.1, "bound": 0.26}}
    write(replace(golden, envelope={"fp16": older}), path, "net")

    def other(outputs: dict[str, np.ndarray]) -> None:
        outputs["i"][:, :2] = outputs["i"][:, 1::-1]

    assert judged(case, other)["i"].error == pytest.approx(2 / 3)


def test_an_output_without_a_bound_is_never_a_pass(tmp_path: Path) -> None:
    case = case_of(topk(), tmp_path)
    golden = read(tmp_path / "golden" / "net.safetensors", "")
    bare = replace(golden, envelope={"fp16": {"v": golden.envelope["fp16"]["v"]}})

    with pytest.raises(GoldenError, match="nothing says how large the error of 'i'"):
        judge(subject_of(case, Precision.FP16), bare, [dict(golden.outputs)])


def test_whole_numbers_that_fail_alone_are_told_how_to_be_accepted(tmp_path: Path) -> None:
    case = case_of(topk(), tmp_path)
    wrong = swap("i", (slice(None), 0), (slice(None), 2))
    subject = subject_of(case, Precision.FP16)

    told = accept_hint(subject, tuple(judged(case, wrong).values()))

    assert "tolerance.fp16 = { outputs.i = { mismatch = 0." in told
    assert 'ignore_outputs = ["i"]' in told
    assert "NaN" not in told


def test_pytorch_may_choose_the_other_of_equal_values_and_no_worse_one(tmp_path: Path) -> None:
    case = case_of(topk(apart=0.0), tmp_path)
    golden, model = create(case), subject_of(case, Precision.FP32).model
    i = golden.outputs["i"]
    other = replace(golden, onnx_outputs={**golden.outputs, "i": (i + CLASSES // 2) % CLASSES})
    wrong = replace(golden, onnx_outputs={**golden.outputs, "i": (i + 1) % CLASSES})

    _require_same(other, model, None, ["v", "i"])
    assert not [hop for hop in export_hops(other) if hop.over]
    with pytest.raises(ExportMismatch, match="output 'i'"):
        _require_same(wrong, model, None, ["v", "i"])
    _require_same(wrong, model, None, ["v"])
