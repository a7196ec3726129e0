"""What the doctor says of Python and of packages, on machines that are not here."""

from __future__ import annotations

import pytest
from fakes.platform import CORE, FakePlatform
from symptoms import only, states

from pytest_trt.doctor import _driver as driver
from pytest_trt.doctor import _packages as packages
from pytest_trt.doctor import _packages as python

# Python


def test_python_that_is_too_old_is_broken_for_all() -> None:
    symptom = only(python.python(FakePlatform(python=(3, 9, 1))), "broken")

    assert "3.9.1" in symptom.said
    assert symptom.needed_by == ("pytest-trt",)


def test_python_of_32_bit_has_no_wheels() -> None:
    assert "64 bit" in only(python.python(FakePlatform(bits=32)), "broken").remedy


def test_macos_runs_no_engine_and_simulates() -> None:
    symptom = only(python.python(FakePlatform(system="Darwin")), "absent")

    assert "tensorrt" in symptom.needed_by
    assert "onnxruntime" not in symptom.needed_by
    assert states(driver.driver(FakePlatform(system="Darwin"))) == []


def test_wsl_is_told() -> None:
    assert any("WSL" in one.said for one in python.python(FakePlatform(release="5.15.0-microsoft-standard-WSL2")))


# packages


def test_a_package_that_is_missing_is_named_with_the_command_that_brings_it() -> None:
    versions = {key: value for key, value in CORE.items() if key != "numpy"}

    symptom = only(packages.required(FakePlatform(versions=versions)), "broken")

    assert "numpy" in symptom.said
    assert symptom.remedy == 'pip install "numpy>=1.24".'


def test_a_package_of_a_python_that_is_not_this_one_is_not_needed() -> None:
    assert any("tomli" in one.said for one in packages.required(FakePlatform(python=(3, 10, 2))))
    assert not any("tomli" in one.said for one in packages.required(FakePlatform()))


def test_pytest_benchmark_that_does_not_fit_pytest_is_broken() -> None:
    found = packages.required(FakePlatform(versions={**CORE, "pytest-benchmark": "5.2.3"}))

    assert "pytest-benchmark 5.2.3 does not fit: pytest-trt needs >=5.3.1" in only(found, "broken").said


def test_what_an_extra_brings_matters_for_that_extra_alone() -> None:
    absent = [one for one in packages.required(FakePlatform()) if one.state == "absent"]

    assert [one.needed_by for one in absent] == [("tensorrt",), ("torch", "torch-compile")]
    assert absent[0].remedy == 'pip install "pytest-trt[tensorrt]".'


def test_sources_that_are_not_installed_are_told() -> None:
    assert "is not installed as a package" in only(packages.required(FakePlatform(needs={})), "broken").said


def test_two_onnxruntimes_are_broken_and_one_is_to_be_kept() -> None:
    both = {"onnxruntime": "1.31.1", "onnxruntime-gpu": "1.31.1"}

    symptom = only(packages.one_onnxruntime(FakePlatform(versions=both)), "broken")

    assert "each wrote over files of the other" in symptom.said
    assert symptom.remedy.startswith('pip uninstall -y onnxruntime onnxruntime-gpu; then pip install "pytest-trt[gpu]"')
    assert "onnxruntime" in symptom.needed_by


def test_no_onnxruntime_is_absent_for_all_that_run_on_it() -> None:
    assert "onnxruntime-cuda" in only(packages.one_onnxruntime(FakePlatform()), "absent").needed_by


def test_onnxruntime_for_the_cpu_is_absent_for_its_providers_alone() -> None:
    found = packages.one_onnxruntime(FakePlatform(versions={"onnxruntime": "1.31.1"}))

    assert only(found, "absent").needed_by == ("onnxruntime-cuda", "onnxruntime-tensorrt")


def test_tensorrt_for_two_cudas_is_broken() -> None:
    versions = {"tensorrt-cu12-bindings": "10.16.1", "tensorrt-cu13-bindings": "10.16.1"}

    assert "for cu12 and cu13" in only(packages.tensorrt_of_one_kind(FakePlatform(versions=versions)), "broken").said


def test_tensorrt_whose_parts_are_of_two_versions_is_broken() -> None:
    versions = {"tensorrt": "11.4.0", "tensorrt-cu13-libs": "11.3.0", "tensorrt-cu13-bindings": "11.4.0"}

    symptom = only(packages.tensorrt_of_one_kind(FakePlatform(versions=versions)), "broken")

    assert "not of one version" in symptom.said
    assert symptom.needed_by == ("tensorrt",)


def test_a_post_release_is_the_same_version() -> None:
    versions = {"tensorrt": "10.6.0.post2", "tensorrt-cu12-libs": "10.6.0"}

    assert states(packages.tensorrt_of_one_kind(FakePlatform(versions=versions))) == ["good"]


@pytest.mark.parametrize(("numpy", "state"), [("2.4.0", ["doubt"]), ("1.26.4", ["good"]), ("1.23.5", [])])
def test_numpy_beside_tensorrt_8_is_looked_at(numpy: str, state: list[str]) -> None:
    versions = {"tensorrt": "8.6.1", "numpy": numpy}

    assert states(packages.numpy_of_tensorrt(FakePlatform(versions=versions))) == state


def test_numpy_beside_a_later_tensorrt_is_no_matter() -> None:
    assert not list(packages.numpy_of_tensorrt(FakePlatform(versions={"tensorrt": "11.4.0", "numpy": "2.4.0"})))


def test_what_packages_say_of_each_other_and_is_not_so_is_a_doubt() -> None:
    versions = {"torch-tensorrt": "2.14.0", "tensorrt-cu13": "11.4.0"}
    needs = {"torch-tensorrt": ("tensorrt-cu13<11.2,>=11.1", "numpy", "ruff; extra == 'tools'", "???")}

    symptom = only(packages.between(FakePlatform(versions=versions, needs=needs)), "doubt")

    assert "torch-tensorrt 2.14.0 wants tensorrt-cu13<11.2,>=11.1, and 11.4.0 is installed" in symptom.said
