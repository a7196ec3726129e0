from __future__ import annotations

import json
import sysconfig
from functools import cache
from importlib import metadata
from importlib.resources import files
from typing import TYPE_CHECKING, Any

import cpuinfo
import networks
import numpy as np
import pytest
import scipy.special
import scipy.stats  # noqa: F401 - as are those below
from envelopes import shared
from jsonschema import Draft202012Validator

import pytest_trt.golden.create
import pytest_trt.golden.load
import pytest_trt.latency.check
import pytest_trt.model.onnx_session
import pytest_trt.model.samples
import pytest_trt.plugin._collection

# pytester forgets what its runs import: what is imported here stays the same module for all of them
import pytest_trt.plugin._manual
import pytest_trt.plugin._results
import pytest_trt.report.markdown
import pytest_trt.report.record
import pytest_trt.report.record_file
import pytest_trt.report.terminal
from pytest_trt.case.case import Case
from pytest_trt.golden.create import update

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path
    from types import ModuleType

SCHEMA = files("pytest_trt.report").joinpath("record.schema.json")
CI = ("CI", "GITHUB_ACTIONS", "GITHUB_STEP_SUMMARY", "GITLAB_CI", "JENKINS_URL")
# what a worker of xdist has in its environment: pytest-benchmark, reading it, would switch itself off in inner runs too
OF_A_WORKER = ("PYTEST_XDIST_WORKER", "PYTEST_XDIST_WORKER_COUNT", "PYTEST_XDIST_TESTRUNUID")


@pytest.fixture(scope="session")
def record_schema() -> Draft202012Validator:
    """What every record is checked against."""
    return Draft202012Validator(json.loads(SCHEMA.read_text()))


@pytest.fixture(autouse=True)
def _records_follow_their_schema(
    monkeypatch: pytest.MonkeyPatch, record_schema: Draft202012Validator
) -> Iterator[None]:
    """Every record that this process makes, each test's own pytest runs among them."""
    made: list[dict[str, Any]] = []
    document = pytest_trt.report.record.document

    def kept(*args: Any, **words: Any) -> dict[str, Any]:
        made.append(document(*args, **words))
        return made[-1]

    monkeypatch.setattr(pytest_trt.plugin._results, "document", kept)
    yield
    wrong = [error.json_path + ": " + error.message for one in made for error in record_schema.iter_errors(one)]
    assert not wrong, wrong[:5]


@pytest.fixture(scope="session", autouse=True)
def _the_processor_is_asked_once() -> Iterator[None]:
    """pytest-benchmark asks at the end of each inner run that timed something, by a process of its own."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(cpuinfo, "get_cpu_info", cache(cpuinfo.get_cpu_info))
        yield


@pytest.fixture(scope="session", autouse=True)
def _what_is_installed_is_read_once() -> Iterator[None]:
    """Each inner run looks through all that is installed for plugins; none of it changes meanwhile."""
    read = metadata.PathDistribution.read_text
    installed = sysconfig.get_path("purelib")

    def read_text(self: metadata.PathDistribution, filename: str) -> str | None:
        path = str(self._path)  # a distribution is made anew each time, so it is known by where it lies
        if not path.startswith(installed):
            return read(self, filename)
        if (path, filename) not in kept:
            kept[path, filename] = read(self, filename)
        return kept[path, filename]

    def parsed_once(name: str) -> property:
        parse = getattr(metadata.PathDistribution, name).fget

        def get(self: metadata.PathDistribution) -> Any:
            path = str(self._path)
            if not path.startswith(installed):
                return parse(self)
            if (path, name) not in parsed:
                parsed[path, name] = parse(self)
            return parsed[path, name]

        return property(get)

    kept: dict[tuple[str, str], str | None] = {}
    parsed: dict[tuple[str, str], Any] = {}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(metadata.PathDistribution, "read_text", read_text)
        for name in ("metadata", "entry_points", "files"):
            patch.setattr(metadata.PathDistribution, name, parsed_once(name))
        yield


@pytest.fixture(scope="session", autouse=True)
def _networks_run_on_one_thread() -> Iterator[None]:
    """Threads of onnxruntime beside the first would wait, spinning, for the next of these small networks."""
    as_written = pytest_trt.model.onnx_session._as_written

    def on_one_thread(onnxruntime: ModuleType) -> Any:
        options = as_written(onnxruntime)
        options.intra_op_num_threads = 1
        return options

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(pytest_trt.model.onnx_session, "_as_written", on_one_thread)
        yield


@pytest.fixture(scope="session", autouse=True)
def _an_envelope_is_measured_once() -> Iterator[None]:
    """Of the same model, inputs and options, by the same code: a test that puts a fault into it gets its own."""
    with pytest.MonkeyPatch.context() as patch:
        for module in (pytest_trt.golden.create, pytest_trt.golden.load):
            patch.setattr(module, "envelope_of", shared(module.envelope_of))
        yield


@pytest.fixture(autouse=True)
def _outside_ci(monkeypatch: pytest.MonkeyPatch) -> None:
    """Goldens are written by the tests' own runs, in their own folders."""
    for name in CI:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.delenv("PYTEST_ADDOPTS", raising=False)
    for name in OF_A_WORKER:
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def project(pytester: pytest.Pytester) -> Path:
    """A folder with net.onnx, calibration.npz and a trt.toml with the case net."""
    networks.save(networks.convolutional(), pytester.path / "net.onnx")
    np.savez(pytester.path / "calibration.npz", x=networks.images(32, seed=2))
    (pytester.path / "trt.toml").write_text('[[model]]\nonnx = "net.onnx"\ncalibration = "calibration.npz"\n')
    return pytester.path


@pytest.fixture(scope="session")
def made_once() -> dict[str, bytes]:
    """Goldens that many tests begin with, by the fixture that made them first: the same inputs give the same bytes."""
    return {}


@pytest.fixture
def golden(project: Path, pytester: pytest.Pytester, made_once: dict[str, bytes]) -> Path:
    """The same project with its golden made; the golden's path."""
    path = project / "golden" / "net.safetensors"

    def make() -> None:
        assert pytester.runpytest("--trt-update-golden").ret == 0

    _place(path, made_once, "golden", make)
    return path


@pytest.fixture
def case(tmp_path: Path, made_once: dict[str, bytes]) -> Case:
    """A case of net.onnx in its own folder, its golden made."""
    networks.save(networks.convolutional(), tmp_path / "net.onnx")
    np.savez(tmp_path / "calibration.npz", x=networks.images(64, seed=2))
    made = Case(onnx="net.onnx", calibration="calibration.npz", base=tmp_path, where="trt.toml")
    path = tmp_path / "golden" / "net.safetensors"
    _place(path, made_once, "case", lambda: update(made, path.parent))
    return made


def _place(path: Path, made_once: dict[str, bytes], fixture: str, make: Callable[[], object]) -> None:
    """Have a golden at its path: a copy of the one that the fixture made first, else made now."""
    if fixture in made_once:
        path.parent.mkdir()
        path.write_bytes(made_once[fixture])
    else:
        make()
        made_once[fixture] = path.read_bytes()
