"""The doctor as a whole: every check together, its probes on the machine that is here, and its command."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import pytest
from click.testing import CliRunner
from fakes.platform import CORE, FakePlatform, cuda, told
from symptoms import ORT, TORCH, TRT

from pytest_trt.backends.backend import _MODULES
from pytest_trt.cli.main import main
from pytest_trt.doctor.examination import BACKENDS, CHECKS, Check, examine
from pytest_trt.doctor.platform import STATES, Here, Ran, Symptom, answer, ended

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


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
