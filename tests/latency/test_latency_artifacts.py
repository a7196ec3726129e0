"""Plans and models that are kept beside a latency, and for how long."""

from __future__ import annotations

import os
from dataclasses import replace
from time import time
from typing import TYPE_CHECKING

import networks
import pytest

from pytest_trt.backends.recipe import Recipe
from pytest_trt.errors import BackendError
from pytest_trt.latency._artifacts import MOST, keep_materials, kept_plan, kept_recipe, promote_materials, prune
from pytest_trt.model.model import Model
from pytest_trt.precision import Precision

if TYPE_CHECKING:
    from pathlib import Path

HOUR = 3600


def recipe(seed: int = 0) -> Recipe:
    return Recipe(Model(networks.convolutional(seed=seed), "net.onnx"), Precision.FP32)


def kept(store: Path, count: int, age_s: float = 0) -> list[str]:
    """So many models, each older than the next by a second, the last of this age; their hashes."""
    found = []
    for number in range(count):
        onnx = keep_materials(store, recipe(number), {}).onnx
        assert onnx is not None
        found.append(onnx)
    for number, path in enumerate(sorted((store / "latency").glob("*.plan"), key=lambda one: one.stat().st_mtime_ns)):
        moment = time() - age_s - count + number
        os.utime(path, (moment, moment))
    return found


def there(store: Path, hashes: list[str]) -> list[str]:
    return [sha256 for sha256 in hashes if kept_recipe(store, sha256, recipe()) is not None]


def test_a_run_of_many_cases_keeps_the_material_of_each(tmp_path: Path) -> None:
    hashes = kept(tmp_path / "store", MOST + 5)
    assert there(tmp_path / "store", hashes) == hashes


def test_what_is_older_than_a_day_goes_but_for_the_newest(tmp_path: Path) -> None:
    hashes = kept(tmp_path / "store", MOST + 5, age_s=25 * HOUR)
    assert prune(tmp_path / "store", MOST) == 5
    assert there(tmp_path / "store", hashes) == hashes[5:]


def test_what_was_promoted_stays(tmp_path: Path) -> None:
    hashes = kept(tmp_path / "store", MOST + 5, age_s=25 * HOUR)
    assert promote_materials(tmp_path / "store", None, hashes[0])
    prune(tmp_path / "store", 0)
    assert there(tmp_path / "store", hashes) == hashes[:1]


def test_what_is_used_again_is_young_again(tmp_path: Path) -> None:
    hashes = kept(tmp_path / "store", 2, age_s=25 * HOUR)
    keep_materials(tmp_path / "store", recipe(0), {})
    prune(tmp_path / "store", 0)
    assert there(tmp_path / "store", hashes) == hashes[:1]


def test_a_plan_is_kept_by_the_hash_that_its_engine_tells(tmp_path: Path) -> None:
    import hashlib

    plan = tmp_path / "net.plan"
    plan.write_bytes(b"a plan")
    sha256 = hashlib.sha256(b"a plan").hexdigest()

    found = keep_materials(tmp_path / "store", replace(recipe(), plan=plan), {"plan_sha256": sha256})

    path = kept_plan(tmp_path / "store", found.plan)
    assert found.plan == sha256
    assert path is not None
    assert path.read_bytes() == b"a plan"


def test_a_plan_that_was_changed_meanwhile_is_not_kept(tmp_path: Path) -> None:
    plan = tmp_path / "net.plan"
    plan.write_bytes(b"another plan")
    found = keep_materials(tmp_path / "store", replace(recipe(), plan=plan), {"plan_sha256": "0" * 64})
    assert found.plan is None


def test_without_a_store_nothing_is_kept_and_that_is_told() -> None:
    found = keep_materials(None, recipe(), {})
    assert (found.plan, found.onnx) == (None, None)
    assert "--trt-store=none" in found.why


def test_nothing_is_promoted_that_is_not_there(tmp_path: Path) -> None:
    assert not promote_materials(tmp_path / "store", "0" * 64, None)
    assert not promote_materials(None, "0" * 64, "0" * 64)


def test_a_store_that_is_a_file_can_not_be_written(tmp_path: Path) -> None:
    (tmp_path / "store").write_text("")
    with pytest.raises(BackendError):
        keep_materials(tmp_path / "store", recipe(), {})
