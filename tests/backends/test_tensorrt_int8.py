"""Every road to int8 with TensorRT, on its fakes: ranges, calibrators, scales that the file holds."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import networks
import numpy as np
import pytest
from building import FEEDS, WEAK, backend, built_times, header, holding_int8, recipe
from fakes.tensorrt import install

from pytest_trt.backends.recipe import Calibration, Span, given, sampled
from pytest_trt.errors import BackendError, CaseError, DataError, LoweringError
from pytest_trt.model.graph import float_activations
from pytest_trt.ranges.amax import Ranges

if TYPE_CHECKING:
    from pathlib import Path


def test_weak_int8_sets_the_range_of_every_float_tensor(monkeypatch: pytest.MonkeyPatch) -> None:
    trt, _ = install(monkeypatch, "8.6")
    wanted = recipe("int8")

    backend("8.6").plan(wanted)

    ranges = header(trt)["ranges"]
    assert set(ranges) == set(float_activations(wanted.model.proto))
    low, high = ranges["x"]
    assert high == -low == pytest.approx(np.abs(FEEDS["x"]).max())


def test_weak_int8_takes_ranges_that_were_given(monkeypatch: pytest.MonkeyPatch) -> None:
    trt, _ = install(monkeypatch, "8.6")
    plain = recipe("int8")
    amax = dict.fromkeys(float_activations(plain.model.proto), 3.5)

    backend("8.6").plan(replace(plain, calibration=given(plain.model, Ranges(amax, "ranges.txt"))))

    assert set(map(tuple, header(trt)["ranges"].values())) == {(-3.5, 3.5)}


@pytest.mark.parametrize("typing", ["weak", "strong"])
def test_notes_on_ranges_that_were_given_are_warnings_of_the_plan_also_from_the_store(
    typing: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    install(monkeypatch, "8.6")
    plain = recipe("int8", typing=typing)
    ranges = Ranges(dict.fromkeys(float_activations(plain.model.proto), 3.5), "ranges.txt", notes=("it is odd.",))
    noted = replace(plain, calibration=given(plain.model, ranges), store=tmp_path)

    assert [backend("8.6").plan(noted).warnings.count("it is odd.") for _ in range(2)] == [1, 1]


def test_a_ranges_file_without_a_tensor_that_weak_int8_needs_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    install(monkeypatch, "8.6")
    plain = recipe("int8")

    with pytest.raises(LoweringError, match="tensors have no range"):
        backend("8.6").plan(replace(plain, calibration=given(plain.model, Ranges({"x": 1.0}, "ranges.txt"))))


def test_a_tensor_that_is_always_zero_gets_a_range(monkeypatch: pytest.MonkeyPatch) -> None:
    trt, _ = install(monkeypatch, "8.6")
    silent = recipe("int8", networks.with_weight(networks.convolutional(), "w1", lambda w: 0 * w))

    backend("8.6").plan(silent)

    assert all(high > 0 for _, high in header(trt)["ranges"].values())


@pytest.mark.parametrize("release", WEAK)
@pytest.mark.parametrize("calibrator", ["entropy", "minmax"])
def test_tensorrts_calibrators_get_every_sample_in_batches_of_one_size(
    release: str, calibrator: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    trt, _ = install(monkeypatch, release)
    plain = recipe("int8", typing="weak", calibrator=calibrator)
    samples = [{"x": networks.images(3, seed=n)} for n in range(4)]

    backend(release).plan(replace(plain, calibration=sampled(plain.model, lambda _: samples, "samples")))

    seen = header(trt)["calibration"]
    assert seen["batch_size"] == 12
    assert seen["sum"] == pytest.approx(sum(float(part["x"].sum()) for part in samples), rel=1e-4)


def test_the_last_batch_is_filled_up_with_its_own_samples(monkeypatch: pytest.MonkeyPatch) -> None:
    trt, _ = install(monkeypatch, "8.6")
    plain = recipe("int8", calibrator="entropy")
    samples = {"x": networks.images(5)}

    backend("8.6").plan(replace(plain, batch=3, calibration=sampled(plain.model, lambda _: [samples], "s")))

    seen = header(trt)["calibration"]
    assert (seen["batch_size"], seen["batches"]) == (3, 2)
    assert seen["sum"] == pytest.approx(float(samples["x"].sum() + samples["x"][3].sum()), rel=1e-4)


def test_a_calibration_cache_is_written_once_and_read_from_then_on(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    trt, _ = install(monkeypatch, "8.6")
    told = recipe("int8", calibrator="entropy", calibration_cache=str(tmp_path / "net.cache"))

    backend("8.6").plan(told)
    written = (tmp_path / "net.cache").read_bytes()
    backend("8.6").plan(replace(told, calibration=None))

    assert header(trt)["calibration"]["cache"]
    assert (tmp_path / "net.cache").read_bytes() == written


def test_a_calibrator_without_samples_or_cache_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    install(monkeypatch, "8.6")

    with pytest.raises(CaseError, match="needs samples"):
        backend("8.6").plan(replace(recipe("int8", calibrator="entropy"), calibration=None))


def test_a_nan_among_the_calibrators_samples_fails_the_build_in_words(monkeypatch: pytest.MonkeyPatch) -> None:
    install(monkeypatch, "8.6")
    plain = recipe("int8", calibrator="entropy")
    spoiled = {"x": np.full((4, 2, 6, 6), np.nan, np.float32)}

    with pytest.raises(DataError, match="NaN"):
        backend("8.6").plan(replace(plain, calibration=sampled(plain.model, lambda _: [spoiled], "samples")))


def test_samples_that_break_off_while_calibrating_fail_the_build_with_their_own_error(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    install(monkeypatch, "8.6")
    plain = recipe("int8", calibrator="entropy")
    calls: list[int] = []

    def samples(_: int | None) -> Any:
        calls.append(1)
        yield FEEDS
        if len(calls) > 1:
            raise DataError("the disk is gone")

    with pytest.raises(DataError, match="the disk is gone"):
        backend("8.6").plan(replace(plain, batch=4, calibration=sampled(plain.model, samples, "s")))


@pytest.mark.parametrize("release", WEAK)
def test_int8_with_fp16_for_the_rest_sets_both_flags(release: str, monkeypatch: pytest.MonkeyPatch) -> None:
    trt, _ = install(monkeypatch, release)

    backend(release).plan(recipe("int8", typing="weak", fallback="fp16"))

    assert {"INT8", "FP16"} <= set(header(trt)["flags"])


def test_int8_that_nothing_calibrates_fails_in_the_builders_words(monkeypatch: pytest.MonkeyPatch) -> None:
    install(monkeypatch, "8.6")
    nothing = Calibration(lambda _: Ranges({}), None, "nothing")

    with pytest.raises(BackendError, match=r"builds no engine. TensorRT says:\n.*scal"):
        backend("8.6").plan(replace(recipe("int8"), calibration=nothing))


def test_int8_without_calibration_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    install(monkeypatch, "8.6")

    with pytest.raises(BackendError, match="give calibration data"):
        backend("8.6").plan(replace(recipe("int8"), calibration=None))


def test_a_file_that_holds_int8_is_built_as_it_is_in_both_typings(monkeypatch: pytest.MonkeyPatch) -> None:
    trt, _ = install(monkeypatch, "10.16")
    held = holding_int8()

    for typing in ("weak", "strong"):
        engine = backend("10.16").build(replace(recipe("model", typing=typing), model=held, calibration=None))
        assert [layer.precision for layer in engine.layers() if layer.computes] == ["int8"] * 3
        assert ("INT8" in header(trt)["flags"]) == (typing == "weak")


def test_batches_of_another_size_are_another_calibration(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    trt, _ = install(monkeypatch, "8.6")
    span = Span((1, 2, 6, 6), (4, 2, 6, 6), (16, 2, 6, 6))
    plain = replace(recipe("int8", calibrator="entropy"), store=tmp_path / "plans", profiles=({"x": span},))

    for batch in (2, 4, None):
        backend("8.6").plan(replace(plain, batch=batch))

    assert built_times(trt) == 3


@pytest.mark.parametrize("release", ["10.16", "11.4"])
@pytest.mark.parametrize("told", [{"calibrator": "entropy"}, {"fallback": "fp16"}, {"calibration_cache": "c"}])
def test_what_belongs_to_weak_int8_is_refused_in_strong_typing_and_not_dropped(
    release: str, told: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    install(monkeypatch, release)

    with pytest.raises(BackendError, match="belong to weak typing"):
        backend(release).plan(recipe("int8", **told))
    assert backend(release).plan(recipe("fp16", **told)).data


def test_a_calibrator_for_a_file_that_holds_its_scales_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    install(monkeypatch, "8.6")
    held = holding_int8()

    with pytest.raises(BackendError, match="holds int8 and its scales already"):
        backend("8.6").plan(replace(recipe("model", calibrator="entropy"), model=held, calibration=None))


@pytest.mark.parametrize("samples", [[], [{"x": np.zeros((0, 2, 6, 6), np.float32)}], [{"z": networks.images(4)}]])
@pytest.mark.parametrize("told", [{"calibrator": "entropy"}, {"typing": "strong"}, {}])
def test_samples_that_are_none_or_do_not_fit_are_refused_by_every_road_to_int8(
    samples: list[Any], told: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    install(monkeypatch, "8.6")
    plain = recipe("int8", **told)

    with pytest.raises((DataError, CaseError)):
        backend("8.6").plan(replace(plain, calibration=sampled(plain.model, lambda _: samples, "samples")))


def test_calibration_samples_are_read_for_their_shapes_and_for_the_calibrator_and_no_more(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    install(monkeypatch, "8.6")
    plain = recipe("int8", calibrator="entropy")
    reads: list[int] = []

    def samples(_: int | None) -> list[dict[str, np.ndarray]]:
        reads.append(1)
        return [FEEDS]

    backend("8.6").plan(replace(plain, calibration=sampled(plain.model, samples, "samples")))

    assert len(reads) == 2
