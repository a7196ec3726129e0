"""Settings: what was asked, whose word counts, and who watches."""

from __future__ import annotations

import os
import shlex
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from pytest_trt.backends.backend import DEFAULT
from pytest_trt.backends.build_options import LISTS, anchored, merged, read_build_options, read_word
from pytest_trt.errors import SpecError
from pytest_trt.evidence.finding import Choice, Scrutiny, read_codes
from pytest_trt.plugin._options import (
    OPTIONS,
    dest_of,
    known_backend,
    known_build_option,
    known_codes,
    known_count,
    known_gate_word,
    known_latency,
    known_lowering,
    known_method,
    known_precisions,
    known_suffix,
    known_timing_word,
    known_typing,
    known_weak_bounds,
)
from pytest_trt.precision import Precision
from pytest_trt.storage.engine_store import default_folder

if TYPE_CHECKING:
    from collections.abc import Callable

    import pytest

    from pytest_trt.case.build_settings import How
    from pytest_trt.case.case import Case

__all__ = [
    "backend_for",
    "baseline_dir",
    "build_only",
    "calibration_for",
    "golden_dir",
    "how_for",
    "ini_precisions",
    "latency_mode",
    "latency_words",
    "localise_always",
    "lowering_for",
    "models",
    "models_alone",
    "options_again",
    "precisions_asked",
    "precisions_for",
    "report_files",
    "require_engine",
    "runs_nothing",
    "scrutiny",
    "store_folder",
    "update_golden",
    "validate",
    "weak_bounds_for",
    "words",
]

_SECONDS_BETWEEN = 0.2


def progress_of(config: pytest.Config) -> Callable[[str, float | None], None] | None:
    """What to tell the progress to: None where the output is no terminal, is quiet, or belongs to another process."""
    reporter = config.pluginmanager.get_plugin("terminalreporter")
    watched = reporter is not None and getattr(reporter, "isatty", False) and config.option.verbose >= 0
    if not watched or hasattr(config, "workerinput"):
        return None
    return _line_writer(reporter, config.pluginmanager.get_plugin("capturemanager"))


def _line_writer(reporter: Any, capture: Any) -> Callable[[str, float | None], None]:
    lock = threading.Lock()
    last = 0.0

    def write(text: str) -> None:
        if capture is None:
            reporter.rewrite(text, erase=True)
            return
        with capture.global_and_fixture_disabled():
            reporter.rewrite(text, erase=True)

    def tell(phase: str, share: float | None) -> None:
        # the builder tells from threads of its own, and more often than anybody reads
        nonlocal last
        with lock:
            if phase and time.monotonic() - last < _SECONDS_BETWEEN:
                return
            last = time.monotonic()
            done = "" if share is None else f" {100 * share:.0f} %"
            write(f"{phase}{done}" if phase else "")

    return tell


T = TypeVar("T")

DEFAULT_PRECISIONS = ("fp32",)


def first_given(command_line: T | None, case: T | None, ini: T | None, default: T) -> T:
    """The one place where precedence is decided: the first that was given, empty values count as not."""
    for value in (command_line, case, ini):
        if value:
            return value
    return default


def validate(config: pytest.Config) -> None:
    """Look at the ini file's words as closely as argparse looked at the command line's.

    Raises:
        SpecError: a precision, a backend or the report's suffix is not known.
    """
    import pytest

    for label, check in (
        ("precision", known_precisions),
        ("backend", known_backend),
        ("lowering", known_lowering),
        ("calibration_method", known_method),
        ("typing", known_typing),
        ("select", known_codes),
        ("ignore", known_codes),
        ("rebuilds", known_count),
        ("weak_bounds", known_weak_bounds),
        ("latency", known_latency),
    ):
        text = _ini(config, label)
        if text:
            try:
                check(text)
            except SpecError as error:
                raise SpecError(f"ini option trt_{label}: {error}") from error
    for label in ("localise", "require_engine"):
        try:
            _ini(config, label)
        except (ValueError, pytest.UsageError) as error:
            raise SpecError(f"ini option trt_{label}: {error}: write true or false") from error
    for label, check in (
        ("build", known_build_option),
        ("report", known_suffix),
        ("timing", known_timing_word),
        ("gate", known_gate_word),
    ):
        for text in _ini(config, label) or ():
            try:
                check(text)
            except SpecError as error:
                raise SpecError(f"ini option trt_{label}: {error}") from error


def precisions_asked(config: pytest.Config) -> tuple[str, ...]:
    """The precisions of the command line alone, in order, each once."""
    texts: list[str] = config.getoption("trt_precision") or []
    return tuple(dict.fromkeys(p.label for text in texts for p in Precision.parse_list(text)))


def ini_precisions(config: pytest.Config) -> tuple[str, ...]:
    """The precisions of the ini file alone."""
    text = _ini(config, "precision")
    return tuple(precision.label for precision in Precision.parse_list(text)) if text else ()


def precisions_for(config: pytest.Config, case: Case | None) -> tuple[str, ...]:
    """What to check a case at."""
    own = case.precisions if case else ()
    return first_given(precisions_asked(config), own, ini_precisions(config), DEFAULT_PRECISIONS)


def backend_for(config: pytest.Config, case: Case | None) -> str:
    """What to run a case on."""
    given: str | None = config.getoption("trt_backend")
    ini: str | None = _ini(config, "backend")
    return first_given(given, case.backend if case else None, ini, DEFAULT)


def calibration_for(config: pytest.Config, case: Case) -> Case:
    """The case, calibrated as the command line says, or as the ini file says where the case does not."""
    from dataclasses import replace

    method = config.getoption("trt_calibration_method")
    method = method or (None if case.calibration_method else _ini(config, "calibration_method"))
    case = replace(case, calibration_method=method) if method else case
    given = config.getoption("trt_calibration")
    told = given or (None if case.calibration else _ini(config, "calibration"))
    if not told:
        return case
    base = config.invocation_params.dir if given else _ini_folder(config)
    is_path = told != "golden" and (base / told).exists()
    return replace(case, calibration=str((base / told).resolve()) if is_path else told)


def lowering_for(config: pytest.Config, case: Case) -> Case:
    """The case, lowered by what the command line says, or by what the ini file says where the case does not."""
    from dataclasses import replace

    told = first_given(config.getoption("trt_lowering"), case.lowering, _ini(config, "lowering"), None)
    return case if told == case.lowering else replace(case, lowering=told)


def weak_bounds_for(config: pytest.Config, case: Case) -> Case:
    """The case, whose weak bounds do what the command line says, or what the ini file says where the case does not."""
    from dataclasses import replace

    told = first_given(config.getoption("trt_weak_bounds"), case.weak_bounds, _ini(config, "weak_bounds"), None)
    return case if told == case.weak_bounds else replace(case, weak_bounds=told)


def how_for(config: pytest.Config, case: Case) -> How:
    """How a case's engine is built: each option from the command line, else the case, else the ini file."""
    from pytest_trt.case.build_settings import How

    told = _build_table(config.getoption("trt_build"), config.getoption("trt_typing"))
    ini = _build_table(_ini(config, "build"), _ini(config, "typing"))
    given = config.getoption("trt_engine")
    plan = Path(config.invocation_params.dir, given) if given else case.base / case.engine if case.engine else None
    return How(
        options=merged(
            anchored(ini, _ini_folder(config)),
            anchored(case.build, case.base),
            anchored(told, config.invocation_params.dir),
        ),
        plan=plan,
        store=_store(config),
        only_build=build_only(config),
        words=tuple(told),
        progress=progress_of(config),
    )


def build_only(config: pytest.Config) -> bool:
    """Whether engines are built and nothing is judged."""
    return bool(config.getoption("trt_build_only"))


def standing(config: pytest.Config, word: str) -> bool:
    """Whether a word is one of addopts or PYTEST_ADDOPTS, and was not typed for this run."""
    words = [*config.getini("addopts"), *shlex.split(os.environ.get("PYTEST_ADDOPTS", ""))]
    return any(str(written).partition("=")[0] == word for written in words)


def _build_table(texts: list[str] | None, typing: str | None) -> dict[str, Any]:
    """What ``--trt-build`` (or its ini twin) says; a list that is repeated grows, else the last one counts."""
    words: dict[str, str] = {}
    for key, value in map(read_word, texts or []):
        words[key] = f"{words[key]},{value}" if key in LISTS and key in words else value
    return read_build_options({**words, **({"typing": typing} if typing else {})}, "--trt-build")


def _store(config: pytest.Config) -> Path | None:
    given, ini = config.getoption("trt_store"), _ini(config, "store")
    told = given or ini
    if told and told.lower() == "none":
        return None
    if told:
        return Path(config.invocation_params.dir if given else _ini_folder(config), told)
    return default_folder()


def latency_mode(config: pytest.Config) -> str | None:
    """What is done about latency: "record", "gate", or None for nothing."""
    told: str | None = first_given(config.getoption("trt_latency"), None, _ini(config, "latency"), None)
    return told


def latency_words(config: pytest.Config, name: str) -> list[str]:
    """The words of ``--trt-timing`` or ``--trt-gate``: those of the ini file, then those of the command line."""
    return [*(_ini(config, name) or ()), *(config.getoption(f"trt_{name}") or ())]


def baseline_dir(config: pytest.Config) -> Path:
    """The folder of latency baselines."""
    return _folder(config, "baseline")


def store_folder(config: pytest.Config) -> Path | None:
    """Where plans and timing caches are kept; None keeps nothing."""
    return _store(config)


def golden_dir(config: pytest.Config) -> Path:
    """The folder of goldens."""
    return _folder(config, "golden")


def _folder(config: pytest.Config, name: str) -> Path:
    """The command line's from where pytest was called, others from the ini file's folder; named so by default."""
    given = config.getoption(f"trt_{name}_dir")
    if given:
        return Path(config.invocation_params.dir, given)
    folder: str = first_given(None, None, _ini(config, f"{name}_dir"), name)
    return _ini_folder(config) / folder


def models(config: pytest.Config) -> list[Path]:
    """ONNX files and folders named by ``--trt-model``, or else by the ini file."""
    given: list[str] = config.getoption("trt_model") or []
    listed: list[str] = config.getini("trt_model") or []
    base, paths = (config.invocation_params.dir, given) if given else (_ini_folder(config), listed)
    return [Path(os.path.abspath(base / path)) for path in paths]  # noqa: PTH100 - links stay as they are named


def models_alone(config: pytest.Config) -> bool:
    """Whether the models are all that is to be collected: they are no standing words of addopts or PYTEST_ADDOPTS."""
    return bool(config.getoption("trt_model")) and not standing(config, "--trt-model")


def options_again(config: pytest.Config) -> str:
    """The options that another command needs to find the same goldens."""
    folder = config.getoption("trt_golden_dir")
    quoted = f'"{folder}"' if folder and " " in folder else folder
    return f" --trt-golden-dir={quoted}" if folder else ""


def runs_nothing(config: pytest.Config) -> bool:
    """Whether pytest only shows something, so that there is nothing to report."""
    option = config.option
    shows = ("collectonly", "setupplan", "showfixtures", "show_fixtures_per_test", "cacheshow")
    return any(getattr(option, name, None) not in (None, False) for name in shows)


def report_files(config: pytest.Config) -> list[Path]:
    """Where to write reports, each file once; the command line's replace the ini file's."""
    given: list[str] = config.getoption("trt_report") or []
    ini: list[str] = _ini(config, "report") or []
    base, paths = (config.invocation_params.dir, given) if given else (_ini_folder(config), ini)
    return list(dict.fromkeys(Path(base, path) for path in paths))


def words(config: pytest.Config) -> list[str]:
    """Our options as they were given on the command line, one word each."""
    found: list[str] = []
    for option in OPTIONS:
        value = getattr(config.option, dest_of(option.name), None)
        flag = f"--trt-{option.name}"
        if value is True:
            found.append(flag)
        elif value:
            found += [f"{flag}={one}" for one in (value if isinstance(value, list) else [value])]
    return found


def localise_always(config: pytest.Config) -> bool:
    """Whether the tensors of passed cases are compared too."""
    return bool(config.getoption("trt_localise") or config.getini("trt_localise"))


def require_engine(config: pytest.Config) -> bool:
    """Whether simulated results are failures."""
    return bool(config.getoption("trt_require_engine") or config.getini("trt_require_engine"))


def scrutiny(config: pytest.Config) -> Scrutiny:
    """Which findings count, and how closely cases are looked at; the command line's codes replace the ini file's."""
    count = config.getoption("trt_rebuilds") or _ini(config, "rebuilds") or "0"
    choice = Choice(_codes(config, "select"), _codes(config, "ignore"))
    return Scrutiny(choice, localise_always(config), int(count))


def _codes(config: pytest.Config, name: str) -> tuple[str, ...]:
    ini: str | None = _ini(config, name)
    texts: list[str] = config.getoption(dest_of(name)) or ([ini] if ini else [])
    return tuple(dict.fromkeys(code for text in texts for code in read_codes(text)))


def update_golden(config: pytest.Config) -> bool:
    """Whether goldens are to be written; the command line's word alone counts."""
    return bool(config.getoption("trt_update_golden"))


def _ini(config: pytest.Config, name: str) -> Any:
    return config.getini(dest_of(name))


def _ini_folder(config: pytest.Config) -> Path:
    return config.inipath.parent if config.inipath else config.rootpath
