"""Plans and caches of TensorRT, on its fakes: built elsewhere, kept in the store, damaged, of another machine."""

from __future__ import annotations

import os
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import networks
import numpy as np
import pytest
from building import FEEDS, backend, built_times, exact, header, recipe
from fakes.tensorrt import RELEASES, install

from pytest_trt.backends.build_options import merged
from pytest_trt.backends.recipe import sampled
from pytest_trt.errors import BackendError
from pytest_trt.model.model import Model
from pytest_trt.precision import Precision

if TYPE_CHECKING:
    import onnx


def prebuilt(release: str, path: Path, proto: onnx.ModelProto | None = None) -> Path:
    path.write_bytes(backend(release).plan(recipe(proto=proto)).data)
    return path


@pytest.mark.parametrize("release", RELEASES)
def test_a_plan_that_was_built_elsewhere_is_loaded_in_place_of_building(
    release: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    trt, _ = install(monkeypatch, release)
    path = prebuilt(release, tmp_path / "net.plan")
    count = len(trt._world.plans)

    engine = backend(release).build(replace(recipe(), plan=path))

    assert len(trt._world.plans) == count
    assert engine.facts["plan"] == str(path)
    assert np.allclose(engine.run(FEEDS)["logits"], exact(networks.convolutional(), FEEDS)["logits"], atol=1e-5)


def test_a_plan_of_another_model_is_refused_by_its_inputs_and_outputs(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    install(monkeypatch, "10.16")
    path = prebuilt("10.16", tmp_path / "net.plan", networks.convolutional(classes=4))

    with pytest.raises(BackendError, match=r"is not one of net\.onnx: it has output 'logits' float32\[-1, 4\]"):
        backend("10.16").build(replace(recipe(), plan=path))


def test_a_plan_of_another_gpu_is_refused(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    install(monkeypatch, "10.16", gpu="OTHER")
    path = prebuilt("10.16", tmp_path / "net.plan")
    monkeypatch.undo()
    install(monkeypatch, "10.16")

    with pytest.raises(BackendError, match=r"can't be loaded by TensorRT 10.* on FAKE GPU"):
        backend("10.16").build(replace(recipe(), plan=path))


def test_a_plan_of_another_release_is_refused(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    install(monkeypatch, "8.6")
    path = prebuilt("8.6", tmp_path / "net.plan")
    monkeypatch.undo()
    install(monkeypatch, "10.16")

    with pytest.raises(BackendError, match="another release"):
        backend("10.16").build(replace(recipe(), plan=path))


@pytest.mark.parametrize("damage", ["missing", "empty", "truncated", "garbage"])
def test_a_damaged_plan_is_refused(damage: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    install(monkeypatch, "10.16")
    path = prebuilt("10.16", tmp_path / "net.plan")
    data = {"missing": b"", "empty": b"", "truncated": path.read_bytes()[:40], "garbage": os.urandom(999)}[damage]
    path.write_bytes(data)
    if damage == "missing":
        path.unlink()

    with pytest.raises(BackendError, match=r"can't be read|is empty|can't be loaded"):
        backend("10.16").build(replace(recipe(), plan=path))


def test_the_store_gives_a_plan_back_and_builds_where_anything_differs(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    trt, _ = install(monkeypatch, "10.16", build_warning="careful")
    plain = replace(recipe("fp16"), store=tmp_path / "plans")

    first = backend("10.16").build(plain)
    second = backend("10.16").build(plain)

    assert built_times(trt) == 1
    assert "from_store" not in first.facts
    assert Path(second.facts["from_store"]).parent == tmp_path / "plans"
    assert second.facts["plan_sha256"] == first.facts["plan_sha256"]
    assert second.warnings == first.warnings == ("careful",)
    others = [
        replace(plain, options=merged({"refit": True})),
        replace(plain, options=merged({"typing": "weak"})),
        replace(plain, precision=Precision.FP32),
        replace(plain, precision=Precision.TF32),
        replace(plain, feeds=({"x": networks.images(2)},)),
        replace(plain, model=Model(networks.convolutional(seed=5), "net.onnx")),
    ]
    for count, other in enumerate(others, 2):
        backend("10.16").build(other)
        assert built_times(trt) == count


def _same(samples: list[dict[str, np.ndarray]], _: int | None) -> list[dict[str, np.ndarray]]:
    return samples


def test_int8_plans_of_other_ranges_or_samples_are_not_taken_from_the_store(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    trt, _ = install(monkeypatch, "8.6")
    for count, (calibrator, seed) in enumerate([("ranges", 1), ("ranges", 2), ("entropy", 1), ("entropy", 2)], 1):
        plain = replace(recipe("int8", calibrator=calibrator), store=tmp_path / "plans")
        samples = [{"x": networks.images(8, seed=seed)}]
        changed = replace(plain, calibration=sampled(plain.model, partial(_same, samples), "s"))
        for _ in range(2):
            backend("8.6").plan(changed)
        assert built_times(trt) == count


@pytest.mark.parametrize(("name", "capability"), [("OTHER", (9, 0)), ("FAKE GPU", (8, 9))])
def test_the_store_keeps_gpus_apart(
    name: str, capability: tuple[int, int], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    plain = replace(recipe(), store=tmp_path / "plans")
    install(monkeypatch, "10.16", compute_capability=(9, 0))
    backend("10.16").build(plain)
    monkeypatch.undo()
    trt, _ = install(monkeypatch, "10.16", gpu=name, compute_capability=capability)

    backend("10.16").build(plain)

    assert built_times(trt) == 1


def test_the_store_keeps_releases_apart(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    plain = replace(recipe(), store=tmp_path / "plans")
    install(monkeypatch, "10.16")
    backend("10.16").build(plain)
    monkeypatch.undo()
    trt, _ = install(monkeypatch, "11.4")

    backend("11.4").build(plain)

    assert built_times(trt) == 1


def test_a_damaged_plan_of_the_store_is_built_anew_with_a_warning(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    trt, _ = install(monkeypatch, "10.16")
    plain = replace(recipe(), store=tmp_path / "plans")
    backend("10.16").build(plain)
    (plan,) = (tmp_path / "plans").glob("*.plan")
    plan.write_bytes(plan.read_bytes()[:-1])

    with pytest.warns(UserWarning, match="plan"):
        backend("10.16").build(plain)

    assert built_times(trt) == 2


def test_the_timing_cache_of_the_store_serves_the_next_build(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    trt, _ = install(monkeypatch, "10.16")
    backend("10.16").plan(replace(recipe(), store=tmp_path / "plans"))

    backend("10.16").plan(replace(recipe(workspace="64M"), store=tmp_path / "plans"))

    assert header(trt)["timing_hits"] > 0


def test_a_timing_cache_of_ones_own_is_written_and_read(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    trt, _ = install(monkeypatch, "10.16")
    told = recipe(timing_cache=str(tmp_path / "own.cache"))

    backend("10.16").plan(told)
    assert header(trt)["timing_hits"] == 0
    backend("10.16").plan(told)

    assert header(trt)["timing_hits"] > 0


def test_a_damaged_timing_cache_is_begun_anew_with_a_warning(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    install(monkeypatch, "10.16")
    (tmp_path / "own.cache").write_bytes(b"damaged")

    with pytest.warns(UserWarning, match=r"own\.cache is damaged"):
        plan = backend("10.16").plan(recipe(timing_cache=str(tmp_path / "own.cache")))

    assert plan.warnings == ()
    assert (tmp_path / "own.cache").read_bytes() != b"damaged"


def test_a_calibration_cache_is_written_though_the_store_has_a_plan_and_the_next_session_builds_nothing(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    trt, _ = install(monkeypatch, "8.6")
    plain = replace(recipe("int8", calibrator="entropy"), store=tmp_path / "plans")
    caching = replace(plain, options=replace(plain.options, calibration_cache=str(tmp_path / "net.cache")))
    backend("8.6").plan(plain)

    backend("8.6").plan(caching)
    assert (tmp_path / "net.cache").exists()
    backend("8.6").plan(caching)

    assert built_times(trt) == 2


@pytest.mark.parametrize("option", ["timing_cache", "calibration_cache"])
def test_a_cache_that_can_not_be_written_is_told_plainly(
    option: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    install(monkeypatch, "8.6")
    (tmp_path / "folder").mkdir()
    told: dict[str, Any] = {"calibrator": "entropy", option: str(tmp_path / "folder")}

    with pytest.raises(BackendError, match=r"cache .*folder can't be written"):
        backend("8.6").plan(recipe("int8", **told))


def test_rtx_uses_no_timing_cache_and_says_so_where_one_is_named(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    install(monkeypatch, "rtx-1.7")

    backend("rtx-1.7").plan(replace(recipe(), store=tmp_path / "plans"))

    assert not list((tmp_path / "plans").glob("*.timing"))
    with pytest.raises(BackendError, match="uses no timing cache"):
        backend("rtx-1.7").plan(recipe(timing_cache=str(tmp_path / "own.cache")))


@pytest.mark.parametrize("damage", ["missing", "empty", "folder"])
def test_a_plan_is_looked_at_before_a_gpu_is_looked_for(
    damage: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    install(monkeypatch, "10.16", {"device_count": 0})
    path = tmp_path / "net.plan"
    if damage == "empty":
        path.write_bytes(b"")
    elif damage == "folder":
        path.mkdir()

    with pytest.raises(BackendError, match=r"the plan .*net\.plan (can't be read|is empty)"):
        backend("10.16").build(replace(recipe(), plan=path))
