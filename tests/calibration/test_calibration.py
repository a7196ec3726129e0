from __future__ import annotations

import json
import tracemalloc
from functools import partial
from typing import TYPE_CHECKING, Any

import networks
import numpy as np
import pytest
from onnx import helper

from pytest_trt import Case, check
from pytest_trt.calibration.calibration import calibrate
from pytest_trt.case.build_settings import How, how_of, recipe_of
from pytest_trt.case.reference import Subject
from pytest_trt.comparison.comparison import compare
from pytest_trt.errors import CaseError, DataError, LoweringError, SpecError
from pytest_trt.golden.create import update
from pytest_trt.lowering.lowering import lower
from pytest_trt.lowering.qdq import quantised_activations
from pytest_trt.model.model import checked
from pytest_trt.model.onnx_session import open_session, run
from pytest_trt.model.sample_stream import pieces
from pytest_trt.precision import Precision

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from pytest_trt.model.model import Model
    from pytest_trt.ranges.amax import Ranges

FLOAT = networks.FLOAT
METHODS = ("minmax", "entropy", "percentile", "mse")


def net(batch: int | str = "N") -> Model:
    return checked(networks.convolutional(batch), "net.onnx")


def ranges(samples: Any, method: str = "minmax", model: Model | None = None, **further: Any) -> Ranges:
    model = model or net()
    return calibrate(model, quantised_activations(model.proto), samples, "data", method=method, **further)


def test_clipped_ranges_lie_within_the_largest_values() -> None:
    samples = [{"x": networks.images(1024)}]
    whole = ranges(samples).amax

    for method in METHODS[1:]:
        clipped = ranges(samples, method).amax
        assert all(0.3 * whole[name] < clipped[name] <= whole[name] for name in whole), method
        assert clipped["x"] < whole["x"]


@pytest.mark.parametrize("method", METHODS)
def test_how_samples_are_cut_changes_nothing(method: str) -> None:
    x = networks.images(30)
    whole = ranges([{"x": x}], method).amax

    for cut in ([{"x": part} for part in np.split(x, 10)], [{"x": x[:1]}, {"x": x[1:]}]):
        for batch in (None, 1, 7):
            assert ranges(cut, method, batch=batch).amax == pytest.approx(whole, rel=1e-3)


@pytest.mark.parametrize("method", METHODS)
def test_a_fixed_batch_calibrates_as_a_dynamic_one(method: str) -> None:
    samples = {"x": networks.images(32)}

    fixed = ranges(samples, method, net(4)).amax

    assert fixed == pytest.approx(ranges(samples, method).amax, rel=1e-3)


@pytest.mark.parametrize("method", METHODS[1:])
def test_outliers_make_clipping_better_than_minmax(method: str) -> None:
    nodes = [helper.make_node("MatMul", ["x", "w"], ["y"])]
    draw = np.random.default_rng(0)
    w = draw.standard_normal((64, 16)).astype(np.float32)
    model = checked(networks.model(nodes, {"x": (FLOAT, ["N", 64])}, {"y": (FLOAT, ["N", 16])}, {"w": w}), "net")
    x = draw.standard_normal((2000, 64)).astype(np.float32)
    spiked = x.copy()
    spiked[0, 0] = 15.0

    def error(method: str) -> float:
        lowered = lower(model, "int8", ranges({"x": spiked}, method, model))
        found = run(open_session(lowered.proto, "int8"), lowered, {"x": x})["y"]
        return compare(found, x @ w).rel_rms

    assert error(method) < 0.8 * error("minmax")


def test_memory_does_not_grow_with_the_number_of_samples(tmp_path: Path) -> None:
    draw = np.random.default_rng(0)
    nodes = [helper.make_node("MatMul", ["x", "w"], ["y"])]
    w = draw.standard_normal((5000, 4)).astype(np.float32)
    proto = networks.model(nodes, {"x": (FLOAT, ["N", 5000])}, {"y": (FLOAT, ["N", 4])}, {"w": w})
    model = checked(proto, "net")

    def peak(count: int) -> int:
        np.savez(tmp_path / "a.npz", x=draw.standard_normal((count, 5000)).astype(np.float32))
        tracemalloc.start()
        ranges(partial(pieces, "a.npz", tmp_path, model.inputs, "calibration"), "entropy", model)
        found = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        return found

    peak(16)  # what is imported and cached once

    assert peak(256) < 1.1 * peak(16)


def test_a_function_opens_the_samples_once_a_pass_and_is_told_how_many_are_wanted_at_once() -> None:
    asked: list[int | None] = []

    def samples(most: int | None) -> Iterator[dict[str, np.ndarray]]:
        asked.append(most)
        for part in np.split(networks.images(32), 4):
            yield {"x": part}

    ranges(samples)
    ranges(samples, "mse")
    ranges(samples, batch=2)

    assert asked == [8, 8, 8, 2]


def test_what_may_not_be_cut_is_asked_for_whole() -> None:
    nodes = [helper.make_node("CumSum", ["x", "axis"], ["c"]), helper.make_node("MatMul", ["c", "w"], ["y"])]
    weights = {"axis": np.array(0), "w": np.eye(4, dtype=np.float32)}
    proto = networks.model(nodes, {"x": (FLOAT, ["T", 4])}, {"y": (FLOAT, ["T", 4])}, weights)
    x = np.random.default_rng(0).random((32, 4)).astype(np.float32)

    def samples(most: int | None) -> Iterator[dict[str, np.ndarray]]:
        for begin in range(0, 32, most or 32):
            yield {"x": x[begin : begin + (most or 32)]}

    for method in METHODS[:2]:
        found = calibrate(checked(proto, "net"), ["c"], samples, "data", method=method).amax["c"]
        assert found > 0.7 * x.cumsum(axis=0).max()


def test_samples_that_can_be_read_once_serve_minmax_alone() -> None:
    def once() -> Iterator[dict[str, np.ndarray]]:
        return iter([{"x": networks.images(32)}])

    assert ranges(once()).amax == ranges([{"x": networks.images(32)}]).amax
    with pytest.raises(DataError, match="can be read only once, and calibration by entropy reads samples twice"):
        ranges(once(), "entropy")


def test_no_samples_are_refused() -> None:
    for empty in ([], lambda _: iter(()), [{"x": networks.images()[:0]}]):
        with pytest.raises(DataError, match="holds no samples"):
            ranges(empty, "entropy")


def test_an_unknown_method_is_refused_before_anything_is_read() -> None:
    with pytest.raises(SpecError, match="did you mean 'entropy'"):
        ranges(lambda _: pytest.fail("read"), "entropi")


def test_entropy_for_fp8_is_refused_before_anything_is_read() -> None:
    with pytest.raises(LoweringError, match="fp8 has not"):
        ranges(lambda _: pytest.fail("read"), "entropy", precision="fp8")


@pytest.mark.parametrize(
    ("samples", "note"),
    [
        (networks.images(1), "data is one sample"),
        (networks.images(7), "data is 7 samples"),
        (np.repeat(networks.images(1), 9, axis=0), "the 9 samples of data are all the same"),
    ],
)
def test_samples_that_say_little_are_noted(samples: np.ndarray, note: str) -> None:
    [told] = ranges([{"x": samples}], "mse").notes

    assert told.startswith(note)


def test_tensors_of_too_few_values_for_entropy_are_noted_and_not_clipped() -> None:
    few, whole = ranges({"x": networks.images(64)}, "entropy"), ranges({"x": networks.images(64)})

    assert few.amax == whole.amax
    [note] = few.notes
    assert note.startswith("3 tensors have too few values over the samples of data for entropy")


def test_enough_samples_are_not_talked_about() -> None:
    assert ranges([{"x": networks.images(8)}]).notes == ()


def test_inputs_that_never_change_are_refused() -> None:
    with pytest.raises(DataError, match=r"'x' is 0\.5 in every one of its 1152 values"):
        ranges([{"x": np.full((16, 2, 6, 6), 0.5, np.float32)}])


def test_a_mask_of_ones_beside_ids_is_noted() -> None:
    model = checked(networks.embedding(), "net")
    ids = np.random.default_rng(0).integers(0, 10, (16, 5))

    [note] = ranges([{"ids": ids, "mask": np.ones((16, 5), np.float32)}], model=model).notes

    assert note == "data: 'mask' is 1.0 in all samples."


def test_tensors_that_are_always_zero_are_noted_and_counted() -> None:
    dead = networks.with_weight(networks.convolutional(), "b1", lambda b: b - 1e6)

    for method in METHODS:
        found = ranges([{"x": networks.images(8)}], method, checked(dead, "net"))
        assert found.amax["r1"] == 0.0
        assert found.notes[0].startswith("2 tensors are zero over all samples of data")
        assert "'r1'" in found.notes[0]


def test_needed_tensors_too_small_for_a_scale_are_taken_for_zero_and_noted() -> None:
    for method in METHODS:
        found = ranges([{"x": networks.images(8) * np.float32(1e-41)}], method)
        assert found.amax["x"] == 0.0
        assert any("so small" in note and "taken for zero: 'x'" in note for note in found.notes)


def test_a_nan_in_a_list_is_named_by_its_number_among_all_samples() -> None:
    spoiled = networks.images(4)
    spoiled[3, 1, 0, 0] = np.nan

    with pytest.raises(DataError, match=r"data: 'x' has 1 NaN .* the first in sample 11"):
        ranges([{"x": networks.images(8)}, {"x": spoiled}])


@pytest.mark.parametrize(
    ("second", "told"),
    [
        (lambda x: x[:-1], "31 samples after 32"),
        (lambda x: x[:0], "0 samples after 32"),
        (lambda x: 2 * x, "larger values of 'x' than before"),
    ],
)
def test_a_second_pass_over_other_samples_is_an_error(second: Any, told: str) -> None:
    passes: list[int] = []

    def samples(_: int | None) -> list[dict[str, np.ndarray]]:
        passes.append(1)
        x = networks.images(32)
        x = x if len(passes) == 1 else second(x)
        return [{"x": x}] if len(x) else []

    with pytest.raises(DataError, match=f"gives other samples each time it is read: {told}"):
        ranges(samples, "mse")


def test_progress_is_told_by_pass_and_cleared_at_the_end_or_at_a_ctrl_c() -> None:
    told: list[tuple[str, float | None]] = []
    parts = [{"x": part} for part in np.split(networks.images(32), 4)]

    ranges(parts, "entropy", progress=lambda phase, share: told.append((phase, share)))

    assert told[0] == ("calibrating on data: largest values", None)
    assert [share for phase, share in told if "histograms" in phase] == [0.0, 0.25, 0.5, 0.75]
    assert told[-1] == ("", None)


def test_ctrl_c_in_the_second_pass_closes_the_data_and_leaves_nothing_written(tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", networks.images(32))
    opened: list[Any] = []
    told: list[str] = []

    def samples(most: int | None) -> Iterator[dict[str, np.ndarray]]:
        opened.append(pieces("a.npy", tmp_path, net().inputs, "calibration", most))
        return opened[-1]

    def interrupt(phase: str, share: float | None) -> None:
        told.append(phase)
        if share and share > 0.4:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        ranges(samples, "entropy", progress=interrupt)

    assert len(opened) == 2
    assert told[-1] == ""
    assert [path.name for path in tmp_path.iterdir()] == ["a.npy"]


@pytest.fixture
def case(tmp_path: Path) -> Case:
    networks.save(networks.convolutional(), tmp_path / "net.onnx")
    np.savez(tmp_path / "calibration.npz", x=networks.images(32, seed=2))
    made = Case(onnx="net.onnx", calibration="calibration.npz", base=tmp_path, where="trt.toml")
    update(made, tmp_path / "golden")
    return made


def told(case: Case, **changes: Any) -> Case:
    return Case.from_table({"onnx": "net.onnx", "calibration": "calibration.npz", **changes}, case.base, "trt.toml")


@pytest.mark.parametrize("method", [*METHODS, "percentile:99.9"])
def test_a_case_is_judged_with_its_method_which_the_record_names(case: Case, method: str) -> None:
    verdict = check(told(case, calibration_method=method), "int8", golden_dir=case.base / "golden")

    assert verdict.verdict == "passed"
    assert str(verdict.provenance["calibration_method"]).startswith(method)


def test_a_case_hands_its_method_and_the_golden_to_calibration(case: Case) -> None:
    feeds = ({"x": networks.images(32)},)
    asked = told(case, calibration="golden", calibration_method="entropy")

    calibration = recipe_of(Subject(asked, Precision.INT8, net()), feeds, How()).calibration

    assert calibration is not None
    assert calibration.ranges(quantised_activations(net().proto)).amax == ranges(feeds, "entropy").amax


def test_an_unknown_method_in_a_case_is_refused(case: Case) -> None:
    with pytest.raises(SpecError, match=r"calibration_method: unknown calibration method 'kl'"):
        told(case, calibration_method="kl")


def test_a_method_beside_ranges_or_tensorrts_own_calibrator_is_refused(case: Case) -> None:
    (case.base / "ranges.txt").write_text("x: 1\nr1: 1\nf: 1\n")

    for changes in ({"calibration": "ranges.txt"}, {"build": {"calibrator": "entropy"}}):
        asked = told(case, calibration_method="mse", **changes)
        with pytest.raises(CaseError, match=r"calibration_method = 'mse' .* leave one of them out"):
            recipe_of(Subject(asked, Precision.INT8, net()), (), how_of(asked))


def test_notes_are_warnings_of_the_engine(case: Case) -> None:
    np.savez(case.base / "calibration.npz", x=networks.images(1, seed=2))

    verdict = check(case, "int8", golden_dir=case.base / "golden")

    assert "is one sample" in verdict.warnings[0]


def test_the_command_lines_method_counts_before_the_cases_before_the_ini_files(
    pytester: pytest.Pytester, golden: Path
) -> None:
    def method(*arguments: str) -> object:
        pytester.runpytest("--trt-precision=int8", "--trt-report=r.json", *arguments)
        return json.loads((pytester.path / "r.json").read_text())["results"][0]["provenance"]["calibration_method"]

    assert method() == "minmax"
    pytester.makeini("[pytest]\ntrt_calibration_method = percentile\n")
    assert method() == "percentile"
    (pytester.path / "trt.toml").write_text(
        '[[model]]\nonnx = "net.onnx"\ncalibration = "calibration.npz"\ncalibration_method = "mse"\n'
    )
    assert method() == "mse"
    assert method("--trt-calibration-method=entropy") == "entropy"


def test_an_unknown_method_is_a_usage_error(pytester: pytest.Pytester, golden: Path) -> None:
    result = pytester.runpytest("--trt-calibration-method=entropie")
    pytester.makeini("[pytest]\ntrt_calibration_method = entropie\n")
    ini = pytester.runpytest()

    assert (result.ret, ini.ret) == (4, 4)
    assert "did you mean 'entropy'" in result.stderr.str()
    assert "trt_calibration_method" in ini.stderr.str()


def test_a_folder_calibrates_from_the_command_line(pytester: pytest.Pytester, golden: Path) -> None:
    (pytester.path / "data").mkdir()
    for number in range(3):
        np.save(pytester.path / "data" / f"{number}.npy", networks.images(8, seed=number))

    result = pytester.runpytest("--trt-precision=int8", "--trt-calibration=data")

    result.assert_outcomes(passed=1)
