"""Options: what was asked, and whose word counts.

The command line counts before the case (marker or trt.toml), the case before the ini file, that before the default.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar

from pytest_trt.errors import SpecError
from pytest_trt.precision import Precision

if TYPE_CHECKING:
    from collections.abc import Callable

    import pytest

    from pytest_trt.case import Case

__all__ = [
    "active",
    "add_options",
    "backend_for",
    "calibration_for",
    "first_given",
    "golden_dir",
    "models",
    "precisions_asked",
    "precisions_for",
    "report_file",
    "require_engine",
    "update_golden",
    "validate",
]

T = TypeVar("T")

DEFAULT_PRECISIONS = ("fp32",)


class _Option(NamedTuple):
    name: str
    help: str
    ini_type: str | None
    settings: dict[str, Any]


def first_given(command_line: T | None, case: T | None, ini: T | None, default: T) -> T:
    """The one place where precedence is decided: the first that was given, empty values count as not."""
    for value in (command_line, case, ini):
        if value:
            return value
    return default


def add_options(parser: pytest.Parser) -> None:
    """Put the options into pytest's command line, each with a twin in the ini file where one makes sense."""
    group = parser.getgroup("trt", "TensorRT and ONNX precision gate (pytest-trt)")
    for option in _OPTIONS:
        flag, dest = f"--trt-{option.name}", _dest(option.name)
        group.addoption(flag, dest=dest, default=None, help=option.help, **option.settings)
        if option.ini_type:
            parser.addini(dest, f"{option.help} Same as {flag}.", type=option.ini_type, default=None)  # type: ignore[arg-type]


def validate(config: pytest.Config) -> None:
    """Look at the ini file's words as closely as argparse looked at the command line's.

    Raises:
        SpecError: a precision, a backend or the report's suffix is not known.
    """
    for label, check in (
        ("precision", Precision.parse_list),
        ("backend", _known_backend),
        ("report", _suffix),
    ):
        text = _ini(config, label)
        if text:
            try:
                check(text)
            except SpecError as error:
                raise SpecError(f"ini option trt_{label}: {error}") from error


def active(config: pytest.Config) -> bool:
    """Whether any option of ours was given."""
    return any(config.getoption(_dest(o.name)) or (o.ini_type and _ini(config, o.name)) for o in _OPTIONS)


def precisions_asked(config: pytest.Config) -> tuple[str, ...]:
    """The precisions of the command line alone, in order, each once."""
    texts: list[str] = config.getoption("trt_precision") or []
    return tuple(dict.fromkeys(p.label for text in texts for p in Precision.parse_list(text)))


def precisions_for(config: pytest.Config, case: Case | None) -> tuple[str, ...]:
    """What to check a case at."""
    ini = _ini(config, "precision")
    return first_given(
        precisions_asked(config),
        case.precisions if case else None,
        tuple(p.label for p in Precision.parse_list(ini)) if ini else None,
        DEFAULT_PRECISIONS,
    )


def backend_for(config: pytest.Config, case: Case | None) -> str:
    """What to run a case on."""
    from pytest_trt.backends import DEFAULT

    given: str | None = config.getoption("trt_backend")
    ini: str | None = _ini(config, "backend")
    return first_given(given, case.backend if case else None, ini, DEFAULT)


def calibration_for(config: pytest.Config, case: Case) -> Case:
    """The case, calibrated as the command line says, or as the ini file says where the case does not."""
    from dataclasses import replace

    given = config.getoption("trt_calibration")
    told = given or (None if case.calibration else _ini(config, "calibration"))
    if not told:
        return case
    base = config.invocation_params.dir if given else _ini_folder(config)
    is_file = (base / told).exists()
    return replace(case, calibration=str((base / told).resolve()) if is_file else told)


def golden_dir(config: pytest.Config) -> Path:
    """The folder of goldens: the command line's from where pytest was called, others from the ini file's folder."""
    given = config.getoption("trt_golden_dir")
    if given:
        return Path(config.invocation_params.dir, given)
    folder: str = first_given(None, None, _ini(config, "golden_dir"), "golden")
    return _ini_folder(config) / folder


def models(config: pytest.Config) -> list[Path]:
    """ONNX files and folders named by ``--trt-model`` or the ini file."""
    given = config.getoption("trt_model")
    if given:
        return [Path(config.invocation_params.dir, path) for path in given]
    listed: list[str] = config.getini("trt_model") or []
    return [_ini_folder(config) / path for path in listed]


def report_file(config: pytest.Config) -> Path | None:
    """Where to write the record, if anywhere."""
    given = config.getoption("trt_report")
    if given:
        return Path(config.invocation_params.dir, given)
    ini = _ini(config, "report")
    return _ini_folder(config) / ini if ini else None


def require_engine(config: pytest.Config) -> bool:
    """Whether simulated results are failures."""
    return bool(config.getoption("trt_require_engine") or config.getini("trt_require_engine"))


def update_golden(config: pytest.Config) -> bool:
    """Whether goldens are to be written; the command line's word alone counts."""
    return bool(config.getoption("trt_update_golden"))


def _dest(name: str) -> str:
    return f"trt_{name.replace('-', '_')}"


def _ini(config: pytest.Config, name: str) -> Any:
    return config.getini(_dest(name))


def _ini_folder(config: pytest.Config) -> Path:
    return config.inipath.parent if config.inipath else config.rootpath


def _checked(check: Callable[[str], object]) -> Callable[[str], str]:
    """An argparse type that keeps the text, which crosses to xdist's workers, once ``check`` has taken it."""

    def read(text: str) -> str:
        try:
            check(text)
        except SpecError as error:
            raise argparse.ArgumentTypeError(str(error)) from error
        return text

    return read


def _known_backend(name: str) -> str:
    from pytest_trt.backends import known_backend

    return known_backend(name)


def _suffix(path: str) -> str:
    suffix = Path(path).suffix
    if suffix != ".json":
        raise SpecError(f"unknown report suffix {suffix!r} of {path!r}: did you mean '.json'? (known: .json)")
    return path


_OPTIONS = (
    _Option(
        "precision",
        "Precisions to check, a comma list or repeated: fp32, tf32, fp16, bf16, int8, or model for the file as it is"
        " (default: what each case names, else fp32).",
        "string",
        {"action": "append", "metavar": "LIST", "type": _checked(Precision.parse_list)},
    ),
    _Option(
        "backend",
        "What builds and runs the engines (default: onnxruntime, which simulates on the CPU).",
        "string",
        {"metavar": "NAME", "type": _checked(_known_backend)},
    ),
    _Option(
        "model",
        "Check this ONNX file, or every one in this folder; no test file is needed, and without other"
        " arguments nothing else is collected. Repeatable.",
        "linelist",
        {"action": "append", "metavar": "PATH"},
    ),
    _Option(
        "calibration",
        "Calibration samples for int8, in place of the cases' own: a .npz, .npy or .safetensors file,"
        " module:function, or golden for the golden's inputs.",
        "string",
        {"metavar": "DATA"},
    ),
    _Option("golden-dir", "Folder of the goldens (default: golden).", "string", {"metavar": "DIR"}),
    _Option(
        "update-golden",
        "Make the goldens of the selected cases anew and print what changed; refused where CI is set.",
        None,
        {"action": "store_true"},
    ),
    _Option(
        "golden-reason",
        "Why the goldens are made anew; kept in them.",
        None,
        {"metavar": "TEXT"},
    ),
    _Option(
        "report",
        "Write the record of all verdicts to this .json file.",
        "string",
        {"metavar": "FILE", "type": _checked(_suffix)},
    ),
    _Option(
        "require-engine",
        "Fail where no engine was built: simulated results do not count.",
        "bool",
        {"action": "store_true"},
    ),
)
