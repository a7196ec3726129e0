"""What the doctor says of drivers and GPUs: on machines that are not here, and by a driver compiled here."""

from __future__ import annotations

import shutil
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest
from fakes.platform import H100, FakePlatform, cuda
from symptoms import WINDOWS, only, states

from pytest_trt.doctor import _driver as driver
from pytest_trt.doctor.platform import Here, Ran

if TYPE_CHECKING:
    from pathlib import Path


def test_a_driver_tells_its_cuda_and_its_gpus() -> None:
    machine = FakePlatform(probes={"libcuda": cuda()})

    assert "up to CUDA 13.0" in only(driver.driver(machine), "good").said
    assert "NVIDIA H100, compute capability 9.0, 81920 MiB" in only(driver.gpus(machine), "good").said


@pytest.mark.parametrize(("machine", "remedy"), [
    (FakePlatform(), "start it with --gpus all"),
    (FakePlatform(**WINDOWS), "nvcuda.dll"),
    (FakePlatform(release="5.15-microsoft"), "/usr/lib/wsl/lib"),
    (FakePlatform(programs={"nvidia-smi": Ran(0)}), "NVIDIA_DRIVER_CAPABILITIES"),
])  # fmt: skip
def test_a_driver_that_is_missing_is_mended_by_where_one_is(machine: FakePlatform, remedy: str) -> None:
    symptom = only(driver.driver(machine), "absent")

    assert remedy in symptom.remedy
    assert "onnxruntime" not in symptom.needed_by


@pytest.mark.parametrize(("number", "said"), [
    (100, "CUDA sees no GPU"),
    (803, "different versions"),
    (802, "not ready"),
    (999, "CUDA does not start"),
])  # fmt: skip
def test_a_driver_that_does_not_start_says_why(number: int, said: str) -> None:
    found = driver.driver(FakePlatform(probes={"libcuda": cuda((12, 4), number)}))

    assert said in only(found, "broken").said


def test_gpus_that_are_hidden_are_told_by_the_variable_that_hides_them() -> None:
    machine = FakePlatform(environment={"CUDA_VISIBLE_DEVICES": ""}, probes={"libcuda": cuda((13, 0), 100)})

    assert "CUDA_VISIBLE_DEVICES is ''" in only(driver.driver(machine), "broken").remedy


def test_a_gpu_that_tensorrt_no_longer_has_is_broken() -> None:
    volta = {**H100, "name": "Tesla V100", "capability": [7, 0]}
    machine = FakePlatform(versions={"tensorrt": "10.5.0"}, probes={"libcuda": cuda((12, 4), 0, volta)})

    assert "7.5 and later" in only(driver.gpus(machine), "broken").said
    earlier = FakePlatform(versions={"tensorrt": "10.4.0"}, probes={"libcuda": cuda((12, 4), 0, volta)})
    assert states(driver.gpus(earlier)) == ["good"]


@pytest.mark.parametrize(("capability", "said"), [
    ([6, 1], "no tensor cores"),
    ([7, 5], "fp16, int8, not for bf16 and tf32, fp8"),
    ([8, 9], "fp16, int8, bf16 and tf32, fp8"),
])  # fmt: skip
def test_a_gpu_tells_what_its_tensor_cores_are_for(capability: list[int], said: str) -> None:
    machine = FakePlatform(probes={"libcuda": cuda((12, 4), 0, {**H100, "capability": capability})})

    assert said in only(driver.gpus(machine), "good").said


@pytest.mark.parametrize(("package", "needed_by"), [
    ("cuda-bindings", ("tensorrt", "tensorrt-rtx")),
    ("tensorrt-cu13-bindings", ("tensorrt",)),
    ("tensorrt-rtx-cu13-bindings", ("tensorrt-rtx",)),
])  # fmt: skip
def test_what_is_for_a_later_cuda_than_the_drivers_is_broken(package: str, needed_by: tuple[str, ...]) -> None:
    machine = FakePlatform(versions={package: "13.1.0"}, probes={"libcuda": cuda((12, 9))})

    symptom = only(driver.fits_driver(machine), "broken")

    assert f"{package} 13.1.0 is for CUDA 13, and the driver has 12.9" in symptom.said
    assert symptom.needed_by == needed_by


def test_what_is_for_the_drivers_major_version_fits() -> None:
    versions = {"cuda-bindings": "12.9.0", "tensorrt-cu12-bindings": "11.4.0"}

    assert not list(driver.fits_driver(FakePlatform(versions=versions, probes={"libcuda": cuda((12, 2))})))


def test_nvidia_smi_tells_the_drivers_own_version() -> None:
    smi = Ran(0, "580.159.04, NVIDIA H100\n580.159.04, NVIDIA H100\n")

    assert "580.159.04, by" in only(driver.nvidia_smi(FakePlatform(programs={"nvidia-smi": smi})), "good").said


def test_nvidia_smi_that_fails_is_a_doubt_with_its_words() -> None:
    smi = Ran(9, "NVIDIA-SMI has failed because it couldn't communicate with the NVIDIA driver.\n")

    assert "couldn't communicate" in only(driver.nvidia_smi(FakePlatform(programs={"nvidia-smi": smi})), "doubt").said


def test_a_jetson_without_nvidia_smi_is_well() -> None:
    machine = FakePlatform(machine="aarch64", probes={"libcuda": cuda()})

    assert states(driver.nvidia_smi(machine)) == ["good"]


DRIVER = """
#include <string.h>
#include <stddef.h>
int cuDriverGetVersion(int *version) { *version = 12080; return 0; }
int cuInit(unsigned flags) { return flags; }
int cuDeviceGetCount(int *count) { *count = 2; return 0; }
int cuDeviceGet(int *device, int index) { *device = 10 + index; return 0; }
int cuDeviceGetName(char *name, int size, int device) {
    strncpy(name, device == 10 ? "first" : "second", size);
    return 0;
}
int cuDeviceTotalMem_v2(size_t *bytes, int device) { *bytes = (size_t)80 << 30; return 0; }
int cuDeviceGetAttribute(int *value, int attribute, int device) { *value = attribute == 75 ? 8 : 9; return 0; }
"""


@pytest.mark.skipif(sys.platform != "linux" or shutil.which("cc") is None, reason="compiles a driver for Linux")
def test_the_probe_asks_a_driver_as_cuda_declares_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "driver.c").write_text(DRIVER)
    compiled = ["cc", "-shared", "-fPIC", "-o", str(tmp_path / "libcuda.so.1"), str(tmp_path / "driver.c")]
    subprocess.run(compiled, check=True)
    monkeypatch.setenv("LD_LIBRARY_PATH", str(tmp_path))

    found, _ = driver.cuda_of(Here(timeout=59))

    assert found is not None
    assert (found["version"], found["init"]) == ([12, 8], 0)
    assert [device["name"] for device in found["devices"]] == ["first", "second"]
    assert found["devices"][1] == {"name": "second", "capability": [8, 9], "memory": 80 << 30}


@pytest.mark.skipif(sys.platform != "linux" or shutil.which("cc") is None, reason="compiles a driver for Linux")
def test_a_driver_that_ends_the_process_ends_that_of_the_probe_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "driver.c").write_text("int cuDriverGetVersion(int *version) { return *(volatile int *)0; }\n")
    compiled = ["cc", "-shared", "-fPIC", "-o", str(tmp_path / "libcuda.so.1"), str(tmp_path / "driver.c")]
    subprocess.run(compiled, check=True)
    monkeypatch.setenv("LD_LIBRARY_PATH", str(tmp_path))

    found, why = driver.cuda_of(Here(timeout=58))

    assert found is None
    assert why == "it ended the process by a segmentation fault"
