"""Options: what pytest is told about ours. Kept light: every run of pytest imports this."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Callable

    import pytest

__all__ = [
    "OPTIONS",
    "add_options",
    "dest_of",
    "given",
    "known_backend",
    "known_build_option",
    "known_codes",
    "known_count",
    "known_gate_word",
    "known_latency",
    "known_lowering",
    "known_method",
    "known_precisions",
    "known_suffix",
    "known_timing_word",
    "known_typing",
    "known_weak_bounds",
]


class Option(NamedTuple):
    """One option: its name after ``--trt-``, its help, the type of its ini twin if it has one, argparse's settings."""

    name: str
    help: str
    ini_type: Any
    settings: dict[str, Any]


def add_options(parser: pytest.Parser) -> None:
    """Put the options into pytest's command line, each with a twin in the ini file where one makes sense."""
    group = parser.getgroup("trt", "TensorRT and ONNX precision gate (pytest-trt)")
    for option in OPTIONS:
        flag, dest = f"--trt-{option.name}", dest_of(option.name)
        group.addoption(flag, dest=dest, default=None, help=option.help, **option.settings)
        if option.ini_type:
            parser.addini(dest, f"{option.help} Same as {flag}.", type=option.ini_type, default=None)


def given(config: pytest.Config) -> bool:
    """Whether any option of ours was given, on the command line or in the ini file."""
    option = config.option
    if any(getattr(option, dest_of(name), None) for name, *_ in OPTIONS):
        return True
    if config.inipath is None and not getattr(option, "override_ini", None):
        return False  # no ini file to ask
    return any(ini_type and config.getini(dest_of(name)) for name, _, ini_type, _ in OPTIONS)


def dest_of(name: str) -> str:
    """The name under which pytest keeps an option."""
    return f"trt_{name.replace('-', '_')}"


def known_precisions(text: str) -> object:
    """The precisions of a comma list.

    Raises:
        SpecError: one is not known.
    """
    from pytest_trt.precision import Precision

    return Precision.parse_list(text)


def known_backend(text: str) -> object:
    """The backend's name.

    Raises:
        SpecError: it is not known.
    """
    from pytest_trt.backends import backend as backends

    return backends.known_backend(text)


def known_suffix(text: str) -> object:
    """The suffix of the report's path.

    Raises:
        SpecError: no report is written under it.
    """
    from pytest_trt.report.record_file import known

    return known(text)


def not_empty(text: str) -> object:
    """A text that is not empty.

    Raises:
        SpecError: it is.
    """
    from pytest_trt.errors import SpecError

    if not text.strip():
        raise SpecError("the path is empty")
    return text


def known_typing(text: str) -> object:
    """The typing.

    Raises:
        SpecError: it is not known.
    """
    from pytest_trt.backends.build_options import read_typing

    return read_typing(text, "typing")


def known_lowering(text: str) -> object:
    """The lowering's name.

    Raises:
        SpecError: it is not known.
    """
    from pytest_trt.lowering import lowering

    return lowering.known_lowering(text)


def known_method(text: str) -> object:
    """The calibration method.

    Raises:
        SpecError: it is not known.
    """
    from pytest_trt.calibration.threshold import read_method

    return read_method(text)


def known_build_option(text: str) -> object:
    """A build option KEY=VALUE.

    Raises:
        SpecError: the key or a word is not known, or the value is out of range.
    """
    from pytest_trt.backends.build_options import read_word

    return read_word(text)


def known_codes(text: str) -> object:
    """The codes and families of a comma list.

    Raises:
        SpecError: one is not known.
    """
    from pytest_trt.evidence.finding import read_codes

    return read_codes(text)


def known_count(text: str) -> object:
    """The number.

    Raises:
        SpecError: it is no whole number, or is negative.
    """
    from pytest_trt.errors import SpecError

    if not text.isdecimal():
        raise SpecError(f"{text!r} is no number of builds: write a whole one, like 3")
    return int(text)


def known_latency(text: str) -> object:
    """What is done about latency.

    Raises:
        SpecError: the word is not known.
    """
    from pytest_trt.errors import unknown

    known = ("record", "gate")
    if text not in known:
        raise unknown("latency mode", text, known)
    return text


def known_timing_word(text: str) -> object:
    """How engines are timed, KEY=VALUE.

    Raises:
        SpecError: the key is not known, or the value is none of it.
    """
    from pytest_trt.latency.options import read_timing_word

    return read_timing_word(text)


def known_gate_word(text: str) -> object:
    """What counts as slower and what then fails, KEY=VALUE.

    Raises:
        SpecError: the key is not known, or the value is none of it.
    """
    from pytest_trt.latency.options import read_gate_word

    return read_gate_word(text)


def known_weak_bounds(text: str) -> object:
    """What weak bounds do.

    Raises:
        SpecError: the word is not known.
    """
    from pytest_trt.comparison import tolerance

    return tolerance.known_weak_bounds(text)


def _checked(check: Callable[[str], object]) -> Callable[[str], str]:
    """An argparse type that keeps the text, which crosses to xdist's workers, once ``check`` has taken it."""

    def read(text: str) -> str:
        from pytest_trt.errors import SpecError

        try:
            check(text)
        except SpecError as error:
            raise argparse.ArgumentTypeError(str(error)) from error
        return text

    return read


OPTIONS = (
    Option(
        "precision",
        "Precisions to check, a comma list or repeated: fp32, tf32, fp16, bf16, int8, fp8, or model for the file as it"
        " is (default: what each case names, else fp32).",
        "string",
        {"action": "append", "metavar": "LIST", "type": _checked(known_precisions)},
    ),
    Option(
        "backend",
        "What builds and runs the engines: tensorrt, tensorrt-rtx, onnxruntime-cuda, onnxruntime-tensorrt, torch,"
        " torch-compile, or onnxruntime, which simulates on the CPU (default).",
        "string",
        {"metavar": "NAME", "type": _checked(known_backend)},
    ),
    Option(
        "model",
        "Check this ONNX file, or every one in this folder; no test file is needed, and on the command line without"
        " other arguments nothing else is collected. Repeatable.",
        "linelist",
        {"action": "append", "metavar": "PATH", "type": _checked(not_empty)},
    ),
    Option(
        "calibration",
        "Calibration samples for int8 and fp8, in place of the cases' own: a .npz, .npy or .safetensors file,"
        " a folder of them, module:function, or golden for the golden's inputs; or a file of ranges (.txt, .cache,"
        " .json, .flatbuffers, .onnx with Q/DQ nodes).",
        "string",
        {"metavar": "DATA"},
    ),
    Option(
        "calibration-method",
        "How calibration samples become ranges: minmax (default), entropy, percentile (99.99) or percentile:99.9, mse.",
        "string",
        {"metavar": "METHOD", "type": _checked(known_method)},
    ),
    Option(
        "lowering",
        "What writes the precision into the model: own (default), or modelopt, which is NVIDIA ModelOpt's AutoCast for"
        " fp16 and bf16 and its quantizer for int8 and fp8 (extra: modelopt).",
        "string",
        {"metavar": "NAME", "type": _checked(known_lowering)},
    ),
    Option("golden-dir", "Folder of the goldens (default: golden).", "string", {"metavar": "DIR"}),
    Option(
        "update-golden",
        "Make the goldens of the selected cases anew and print what changed; refused where CI is set.",
        None,
        {"action": "store_true"},
    ),
    Option(
        "golden-reason",
        "Why the goldens are made anew; kept in them.",
        None,
        {"metavar": "TEXT"},
    ),
    Option(
        "report",
        "Write a report of all verdicts to this file: .json (the record, which the others render), .md or .html."
        " Repeatable.",
        "linelist",
        {"action": "append", "metavar": "FILE", "type": _checked(known_suffix)},
    ),
    Option(
        "typing",
        "How TensorRT is told the precision: strong (the model holds it), weak (builder flags, TensorRT 8 to 10),"
        " auto (strong where the release has it; the default).",
        "string",
        {"metavar": "TYPING", "type": _checked(known_typing)},
    ),
    Option(
        "build",
        "How engines are built, as in a case's build table: workspace=2G, optimization_level=3, tactic_sources=none,"
        " refit=true, device=1, ... Repeatable.",
        "linelist",
        {"action": "append", "metavar": "KEY=VALUE", "type": _checked(known_build_option)},
    ),
    Option(
        "engine",
        "Judge this plan, which was built elsewhere, in place of building: for one case at one precision. A plan is"
        " code: load only those you trust.",
        None,
        {"metavar": "FILE", "type": _checked(not_empty)},
    ),
    Option(
        "store",
        "Folder that keeps plans and timing caches, so that the next run builds nothing (default: pytest-trt in the"
        " user's cache folder); none keeps nothing.",
        "string",
        {"metavar": "DIR", "type": _checked(not_empty)},
    ),
    Option(
        "build-only",
        "Build the engines and judge nothing: shows that a model parses and builds, on a machine that can't run it;"
        " without a GPU with --trt-backend=tensorrt-rtx --trt-build compute_capabilities=8.9. To be typed, not kept in"
        " addopts.",
        None,
        {"action": "store_true"},
    ),
    Option(
        "select",
        "Findings that count, a comma list of codes or families or repeated: TRT105, TRT3 (default: all).",
        "string",
        {"action": "append", "metavar": "CODES", "type": _checked(known_codes)},
    ),
    Option(
        "ignore",
        "Findings that are neither shown nor judged, as with --trt-select; the record counts them.",
        "string",
        {"action": "append", "metavar": "CODES", "type": _checked(known_codes)},
    ),
    Option(
        "weak-bounds",
        "What an output does that is inside a bound which says little (TRT307): warn (default) or fail.",
        "string",
        {"metavar": "WORD", "type": _checked(known_weak_bounds)},
    ),
    Option(
        "rebuilds",
        "Build each engine so many times more and judge every build; the plan is loaded again too.",
        "string",
        {"metavar": "N", "type": _checked(known_count)},
    ),
    Option(
        "localise",
        "Compare all tensors with those of fp32 for passed cases too, and name the worst; failed ones always are.",
        "bool",
        {"action": "store_true"},
    ),
    Option(
        "latency",
        "Time each engine that is right: record keeps the samples with pytest-benchmark, gate also compares them with"
        " the promoted baseline and fails what became slower. Not under xdist.",
        "string",
        {"metavar": "MODE", "type": _checked(known_latency)},
    ),
    Option(
        "timing",
        "How engines are timed: as=trtexec-10, as=trtexec-11, graph=false, spin=false, transfers=true, warmup_s=200ms,"
        " least_s=1, most_s=5, least=662, pairs=10, block_s=50ms. Repeatable.",
        "linelist",
        {"action": "append", "metavar": "KEY=VALUE", "type": _checked(known_timing_word)},
    ),
    Option(
        "gate",
        "What counts as slower: margin=0.01, threshold=0.025, and what a state does: ambiguous=warn, no-baseline=pass."
        " Repeatable.",
        "linelist",
        {"action": "append", "metavar": "KEY=VALUE", "type": _checked(known_gate_word)},
    ),
    Option(
        "baseline-dir",
        "Folder of the latency baselines that pytest-trt baseline promote writes (default: baseline).",
        "string",
        {"metavar": "DIR", "type": _checked(not_empty)},
    ),
    Option(
        "require-engine",
        "Fail where no engine was built: simulated results do not count.",
        "bool",
        {"action": "store_true"},
    ),
)
