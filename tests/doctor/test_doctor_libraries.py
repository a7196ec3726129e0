"""What the doctor says of TensorRT's libraries and of what imports them, on machines that are not here."""

from __future__ import annotations

import pytest
from fakes.platform import FakePlatform, cuda, told
from symptoms import ORT, TORCH, TRT, WINDOWS, only, states

from pytest_trt.doctor import _frameworks as frameworks
from pytest_trt.doctor import _tensorrt as libraries
from pytest_trt.doctor import _tensorrt as tensorrt
from pytest_trt.doctor.platform import Ran

LDCONFIG = (
    "\tlibnvinfer.so.10 (libc6,x86-64) => /lib/x86_64-linux-gnu/libnvinfer.so.10\n\tlibz.so (libc6) => /lib/libz.so\n"
)


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
