"""The doctor on machines that are not here: each check by an injected platform."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import pytest
from click.testing import CliRunner
from fakes.platform import CORE, H100, FakePlatform, cuda, told

from pytest_trt.backends.backend import _MODULES
from pytest_trt.cli.main import main
from pytest_trt.doctor import _driver as driver
from pytest_trt.doctor import _frameworks as frameworks
from pytest_trt.doctor import _packages as packages
from pytest_trt.doctor import _packages as python
from pytest_trt.doctor import _tensorrt as libraries
from pytest_trt.doctor import _tensorrt as tensorrt
from pytest_trt.doctor.examination import BACKENDS, CHECKS, Check, examine
from pytest_trt.doctor.platform import STATES, Here, Ran, Symptom, answer, ended

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

TORCH = {"version": "2.13.0", "cuda": "13.0", "usable": True, "architectures": ["sm_80", "sm_90"], "capability": [9, 0]}
TRT = {"version": "11.4.0", "file": "/venv/tensorrt/__init__.py", "weak": False, "strong": True, "dla": 0}
ORT = {"version": "1.31.1", "available": ["CPUExecutionProvider"], "loaded": ["CPUExecutionProvider"]}
WINDOWS: dict[str, Any] = {"system": "Windows", "machine": "AMD64", "site": (r"C:\venv\Lib\site-packages",)}
LDCONFIG = (
    "\tlibnvinfer.so.10 (libc6,x86-64) => /lib/x86_64-linux-gnu/libnvinfer.so.10\n\tlibz.so (libc6) => /lib/libz.so\n"
)


def only(found: Iterator[Symptom], state: str) -> Symptom:
    """The one symptom of this state."""
    [symptom] = [one for one in found if one.state == state]
    return symptom


def states(found: Iterator[Symptom]) -> list[str]:
    return [one.state for one in found]


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


# the driver


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


# TensorRT's libraries


def test_on_linux_the_wheel_comes_before_the_variable_and_that_before_ldconfig() -> None:
    machine = FakePlatform(
        environment={"LD_LIBRARY_PATH": "/opt/trt/lib:"},
        folders={
            "/venv/lib/python3.11/site-packages/tensorrt_libs": ("libnvinfer.so.10", "libnvonnxparser.so.10"),
            "/opt/trt/lib": ("libnvinfer.so", "libnvinfer.so.10.3.0"),
        },
        programs={"ldconfig": Ran(0, LDCONFIG)},
    )

    copies = libraries.copies_of(machine)

    assert [(copy.how, copy.version) for copy in copies] == [
        ("wheel", "10"), ("LD_LIBRARY_PATH", "10.3.0"), ("ldconfig", "10"),
    ]  # fmt: skip
    assert states(libraries.libraries(machine)) == ["good"] * 3


def test_two_major_versions_on_the_way_are_a_doubt() -> None:
    machine = FakePlatform(
        environment={"LD_LIBRARY_PATH": "/opt/trt8/lib"},
        folders={"/opt/trt8/lib": ("libnvinfer.so.8",)},
        programs={"ldconfig": Ran(0, LDCONFIG)},
    )

    symptom = only(libraries.libraries(machine), "doubt")

    assert "2 major versions; the first is taken: /opt/trt8/lib/libnvinfer.so.8" in symptom.said


def test_libraries_that_nothing_looks_for_are_to_be_put_on_the_path() -> None:
    machine = FakePlatform(folders={"/usr/local/TensorRT/lib": ("libnvinfer.so.10",)})

    symptom = only(libraries.libraries(machine), "doubt")

    assert "no search path has its folder" in symptom.said
    assert symptom.remedy == "Put /usr/local/TensorRT/lib on LD_LIBRARY_PATH before Python starts."


def test_on_windows_the_wheel_comes_before_path_which_knows_no_case() -> None:
    machine = FakePlatform(
        **WINDOWS,
        environment={"Path": r'C:\Windows;"D:\TensorRT-10.3.0.26\lib";'},
        folders={
            r"C:\venv\Lib\site-packages\tensorrt_libs": ("nvinfer_11.dll", "nvinfer_plugin_11.dll"),
            r"D:\TensorRT-10.3.0.26\lib": ("nvinfer_10.dll", "nvinfer_lean_10.dll"),
        },
    )

    copies = libraries.copies_of(machine)

    assert [(copy.how, copy.path, copy.version) for copy in copies] == [
        ("wheel", r"C:\venv\Lib\site-packages\tensorrt_libs\nvinfer_11.dll", "11"),
        ("PATH", r"D:\TensorRT-10.3.0.26\lib\nvinfer_10.dll", "10"),
    ]
    assert "2 major versions" in only(libraries.libraries(machine), "doubt").said


def test_libraries_that_were_copied_into_cudas_folder_are_a_doubt() -> None:
    folder = r"C:\Program Files\NVIDIA GPU Computing Toolkit\CUDA\v11.1\bin"
    machine = FakePlatform(
        **WINDOWS, environment={"PATH": folder}, folders={folder: ("nvinfer.dll", "cudart64_110.dll")}
    )

    symptom = only(libraries.libraries(machine), "doubt")

    assert "was copied into CUDA's own folder" in symptom.said
    assert "TensorRT 8 or older, by PATH" in only(libraries.libraries(machine), "good").said


def test_a_cuda_path_that_leads_nowhere_is_a_doubt() -> None:
    machine = FakePlatform(**WINDOWS, environment={"CUDA_PATH": r"C:\CUDA\v13.0", "CUDA_PATH_V13_0": r"C:\CUDA\v13.0"})

    assert "has no cudart64_*.dll" in only(libraries.cuda_runtime(machine), "doubt").said
    there = FakePlatform(
        **WINDOWS, environment=machine.environment, folders={r"C:\CUDA\v13.0\bin": ("cudart64_13.dll",)}
    )
    assert states(libraries.cuda_runtime(there)) == ["good"]


# imports in a process of their own


def test_tensorrt_tells_its_release_its_typing_and_dla() -> None:
    probes = {"tensorrt": told(**{**TRT, "version": "10.3.0", "weak": True, "dla": 2})}

    found = list(tensorrt.tensorrt(FakePlatform(modules=("tensorrt",), probes=probes)))

    assert "TensorRT 10.3.0 from /venv/tensorrt/__init__.py: strong and weak typing" in found[0].said
    assert "2 DLA cores" in found[1].said


def test_tensorrt_that_ends_the_process_is_broken_and_said_so() -> None:
    machine = FakePlatform(modules=("tensorrt",), probes={"tensorrt": Ran(-11, "", "")})

    symptom = only(tensorrt.tensorrt(machine), "broken")

    assert "it ended the process by a segmentation fault" in symptom.said
    assert symptom.needed_by == ("tensorrt",)


def test_tensorrt_that_imports_and_then_ends_the_process_in_its_builder_has_told_its_version() -> None:
    early = told(**{key: value for key, value in TRT.items() if key != "dla"})
    machine = FakePlatform(modules=("tensorrt",), probes={"tensorrt": Ran(-11, early.out)})

    assert states(tensorrt.tensorrt(machine)) == ["good"]


def test_tensorrt_whose_library_is_missing_on_linux_names_the_variable() -> None:
    error = "ImportError: libnvinfer.so.10: cannot open shared object file: No such file or directory"
    machine = FakePlatform(modules=("tensorrt",), probes={"tensorrt": told(error=error)})

    assert "LD_LIBRARY_PATH" in only(tensorrt.tensorrt(machine), "broken").remedy


def test_tensorrt_whose_dll_is_missing_on_windows_names_path_and_what_is_there() -> None:
    machine = FakePlatform(
        **WINDOWS,
        environment={"PATH": r"D:\trt8\lib"},
        folders={r"D:\trt8\lib": ("nvinfer.dll",)},
        modules=("tensorrt",),
        probes={"tensorrt": told(error="FileNotFoundError: Could not find: nvinfer_10.dll. Is it on your PATH?")},
    )

    remedy = only(tensorrt.tensorrt(machine), "broken").remedy

    assert "folder on PATH" in remedy
    assert r"D:\trt8\lib\nvinfer.dll" in remedy


@pytest.mark.parametrize(("machine", "remedy"), [
    (FakePlatform(), 'pip install "pytest-trt[tensorrt]"'),
    (FakePlatform(machine="aarch64", folders={"/etc": ("nv_tegra_release",)}), "--system-site-packages"),
])  # fmt: skip
def test_tensorrt_that_is_not_installed_says_how_to_install_it(machine: FakePlatform, remedy: str) -> None:
    assert remedy in only(tensorrt.tensorrt(machine), "absent").remedy


def test_a_provider_that_can_not_be_loaded_is_absent_for_its_backend() -> None:
    available = ["TensorrtExecutionProvider", "CUDAExecutionProvider", "CPUExecutionProvider"]
    probes = {"onnxruntime": told(**{**ORT, "available": available, "loaded": available[1:]})}

    symptom = only(frameworks.onnxruntime(FakePlatform(modules=("onnxruntime",), probes=probes)), "absent")

    assert symptom.needed_by == ("onnxruntime-tensorrt",)


def test_onnxruntime_that_can_not_be_imported_on_windows_names_the_redistributable() -> None:
    probes = {"onnxruntime": Ran(1, "", "ImportError: DLL load failed while importing onnxruntime_pybind11_state")}
    machine = FakePlatform(**WINDOWS, modules=("onnxruntime",), probes=probes)

    symptom = only(frameworks.onnxruntime(machine), "broken")

    assert "DLL load failed" in symptom.said
    assert "redistributable" in symptom.remedy


def test_torch_that_does_not_see_the_gpu_is_a_doubt() -> None:
    blind = told(**{**TORCH, "cuda": "13.0", "usable": False, "architectures": [], "capability": []})
    machine = FakePlatform(modules=("torch",), probes={"libcuda": cuda((12, 4)), "torch": blind})

    assert (
        "built for CUDA 13.0 and does not see the GPU; the driver has CUDA 12.4"
        in only(frameworks.torch(machine), "doubt").said
    )


@pytest.mark.parametrize(("architectures", "capability", "fine"), [
    (["sm_80", "sm_90"], [9, 0], True),
    (["sm_80"], [8, 6], True),
    (["sm_80", "sm_90"], [12, 0], False),
    (["sm_90", "compute_90"], [12, 0], True),
    (["sm_90a"], [9, 0], True),
    (["sm_90"], [7, 5], False),
])  # fmt: skip
def test_torchs_kernels_are_for_the_gpus_major_version_or_come_as_ptx(
    architectures: list[str], capability: list[int], fine: bool
) -> None:
    probe = told(**{**TORCH, "architectures": architectures, "capability": capability})
    found = frameworks.torch(FakePlatform(modules=("torch",), probes={"import torch": probe}))

    assert ("doubt" not in states(found)) == fine


def test_cuda_bindings_that_reach_no_gpu_are_absent_for_tensorrt() -> None:
    words = "CUDA driver version is insufficient for CUDA runtime version"
    probes = {"cuda.bindings": told(error=35, count=0, runtime=13000, words=words)}
    machine = FakePlatform(versions={"cuda-bindings": "13.1.0"}, probes=probes)

    symptom = only(frameworks.cuda_python(machine), "absent")

    assert words in symptom.said
    assert "tensorrt" in symptom.needed_by


def test_pycuda_that_was_built_for_another_cuda_is_broken() -> None:
    error = Ran(1, "", "ImportError: libcurand.so.10: cannot open shared object file")
    machine = FakePlatform(versions={"pycuda": "2026.1"}, probes={"pycuda": error})

    assert only(frameworks.pycuda(machine), "broken").needed_by == ("pycuda",)


@pytest.mark.parametrize(("ran", "said"), [
    (Ran(-6), "an abort"),
    (Ran(3221225477), "an access violation"),
    (Ran(-1073741515), "a DLL that is missing"),
    (Ran(None, "", "it did not end within 60 s"), "did not end"),
    (Ran(7), "exit code 7"),
    (Ran(-31), "signal 31"),
])  # fmt: skip
def test_how_a_process_ended_is_told_in_words(ran: Ran, said: str) -> None:
    assert said in ended(ran)


# all of it


def healthy(**others: Any) -> FakePlatform:
    needed = {**CORE, "onnxruntime": "1.31.1", "tensorrt": "11.4.0", "cuda-bindings": "13.1.0", "torch": "2.13.0"}
    probes = {
        "libcuda": cuda(),
        "import onnxruntime": told(**ORT),
        "cuda.bindings": told(error=0, count=1, runtime=13000, words=""),
        "import torch": told(**TORCH),
        "'tensorrt'": told(**TRT),
    }
    given: dict[str, Any] = {"versions": needed, "modules": ("onnxruntime", "tensorrt", "torch"), "probes": probes}
    return FakePlatform(**{**given, **others})


def test_a_healthy_machine_is_fit_for_what_it_has() -> None:
    found = examine(healthy(), ("tensorrt", "torch"))

    assert found.against == []
    assert [name for name, fits in found.fit_for.items() if fits] == [
        "onnxruntime",
        "tensorrt",
        "torch",
        "torch-compile",
    ]


def test_what_is_missing_counts_where_it_was_asked_for_and_nowhere_else() -> None:
    machine = FakePlatform(
        versions={**CORE, "onnxruntime": "1.31.1"},
        modules=("onnxruntime",),
        probes={"import onnxruntime": told(**ORT)},
    )

    assert examine(machine).against == []
    assert {"driver", "tensorrt"} <= {one.about for one in examine(machine, ("tensorrt",)).against}


def test_a_check_that_crashes_is_a_symptom_and_its_backends_are_not_fit() -> None:
    def crashes(platform: Any) -> Iterator[Symptom]:
        raise KeyError("planted")

    found = examine(FakePlatform(), ("tensorrt",), (Check("tensorrt", crashes, ("tensorrt",)),))

    assert "the check crashes failed: KeyError: 'planted'" in found.against[0].said
    assert not found.fit_for["tensorrt"]
    assert found.fit_for["torch"]


@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.looks.__name__)
def test_no_check_crashes_on_a_machine_that_answers_nonsense(check: Check) -> None:
    versions = {**CORE, "tensorrt": "unknown", "cuda-bindings": "x", "onnxruntime-gpu": "", "torch": "2+weird"}
    machine = FakePlatform(
        versions=versions,
        modules=("tensorrt", "torch", "onnxruntime"),
        programs={"nvidia-smi": Ran(0, "\n"), "ldconfig": Ran(0, "=> \n => /x\nlibnvinfer.so.x => y\n")},
        environment={"LD_LIBRARY_PATH": "::", "CUDA_VISIBLE_DEVICES": "9"},
        site=(),
    )

    assert {one.state for one in check.looks(machine)} <= set(STATES)


def test_the_doctor_knows_every_backend() -> None:
    assert set(BACKENDS) == set(_MODULES)


# here


def test_a_probe_here_answers_and_a_crash_is_told() -> None:
    from pytest_trt.doctor.platform import MARK

    found, why = answer(Here(), f"print('noise'); print({MARK!r} + '{{\"a\": 1}}')")
    crashed, said = answer(Here(), "import os; os.abort()")

    assert (found, why) == ({"a": 1}, "")
    assert crashed is None
    assert "ended" in said


def test_a_probe_that_hangs_is_stopped() -> None:
    found, why = answer(Here(timeout=1), "import time; time.sleep(60)")

    assert found is None
    assert "did not end within 1 s" in why


def test_a_library_that_is_not_there_is_told_by_the_loader() -> None:
    assert "libnothing-of-this-name" in ended(Here().says("import ctypes; ctypes.CDLL('libnothing-of-this-name.so')"))


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


def test_a_folder_that_is_called_as_a_package_is_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "some_folder_of_mine").mkdir()
    monkeypatch.syspath_prepend(tmp_path)

    assert not Here().finds("some_folder_of_mine")
    assert Here().finds("json")


def test_the_command_says_for_a_program_what_it_says_for_a_person() -> None:
    words = [sys.executable, "-m", "pytest_trt.cli", "doctor"]

    plain = subprocess.run(words, capture_output=True, text=True, check=False)
    found = subprocess.run([*words, "--json"], capture_output=True, text=True, check=False)

    facts = json.loads(found.stdout)
    assert plain.returncode == found.returncode == (0 if facts["fit"] else 1)
    assert facts["fit_for"]["onnxruntime"]
    assert all(one["said"] in plain.stdout for one in facts["symptoms"])
    assert "Traceback" not in plain.stdout + plain.stderr


def test_a_word_that_is_no_backend_names_the_nearest() -> None:
    found = CliRunner().invoke(main, ["doctor", "--for", "onnxruntime,tensort"])

    assert found.exit_code == 2
    assert "did you mean 'tensorrt'" in found.output


def test_what_was_asked_for_and_is_not_there_is_exit_code_1(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pytest_trt.cli._doctor.Here", lambda _: healthy(modules=("onnxruntime",)))

    asked = CliRunner().invoke(main, ["doctor", "--for", "tensorrt"])
    unasked = CliRunner().invoke(main, ["doctor"])

    assert (asked.exit_code, unasked.exit_code) == (1, 0)
    assert "not fit for tensorrt: 1 to mend" in asked.output
    assert "fit for pytest-trt itself" in unasked.output
