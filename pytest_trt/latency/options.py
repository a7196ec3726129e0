"""Options: what users say of timing and of the gate, ``KEY=VALUE`` on the command line, read into plain settings."""

from __future__ import annotations

import re
from dataclasses import fields, replace
from typing import TYPE_CHECKING, Any

from pytest_trt.backends.stopwatch import Timing
from pytest_trt.errors import SpecError, unknown
from pytest_trt.latency._rounds import Design
from pytest_trt.latency.rule import ACTIONS, Policy, Rule

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

__all__ = ["gate_of", "read_gate_word", "read_timing_word", "timing_of"]

_SECONDS = re.compile(r"(\d+(?:\.\d+)?) *(s|ms|us)?")
_UNITS = {"s": 1.0, "ms": 1e-3, "us": 1e-6, "": 1.0}

_TRTEXEC = {
    "trtexec-10": {"graph": False, "spin": False, "transfers": True},
    "trtexec-11": {"graph": True, "spin": True, "transfers": False},
}
"""The defaults of trtexec before and since its release 11, whose "latency" are two different things."""


def read_timing_word(text: str) -> tuple[str, Any]:
    """One ``KEY=VALUE`` of ``--trt-timing``.

    Raises:
        SpecError: the key is not known, or the value is none of it.
    """
    return _read(text, _TIMING, "--trt-timing")


def read_gate_word(text: str) -> tuple[str, Any]:
    """One ``KEY=VALUE`` of ``--trt-gate``.

    Raises:
        SpecError: the key is not known, or the value is none of it.
    """
    return _read(text, _GATE, "--trt-gate")


def timing_of(texts: Iterable[str]) -> tuple[Timing, Design]:
    """How engines are timed, alone and side by side; later words count before earlier ones.

    Raises:
        SpecError: a word is not known.
    """
    told: dict[str, Any] = {}
    for key, value in map(read_timing_word, texts):
        told.update(_TRTEXEC[value] if key == "as" else {key: value})
    timing = {key: value for key, value in told.items() if key in _names(Timing)}
    if timing.get("most_s", Timing.most_s) < timing.get("least_s", Timing.least_s):
        raise SpecError("--trt-timing: most_s is below least_s: raise one or lower the other.")
    design = {key: value for key, value in told.items() if key in ("pairs", "block_s")}
    return Timing(**timing), replace(Design(), **design)


def gate_of(texts: Iterable[str]) -> tuple[Rule, Policy]:
    """What counts as slower, and what each state does to a case; later words count before earlier ones.

    Raises:
        SpecError: a word is not known.
    """
    told = dict(map(read_gate_word, texts))
    rule = Rule(**{key: value for key, value in told.items() if key in _names(Rule)})
    if rule.threshold < rule.margin:
        raise SpecError(
            f"--trt-gate: threshold {rule.threshold:.3g} is below margin {rule.margin:.3g}: what is inside the margin"
            " is called noise and can't be called slow."
        )
    return rule, Policy({key: value for key, value in told.items() if key in Policy.states()})


def _names(kind: Any) -> set[str]:
    return {field.name for field in fields(kind)}


def _read(text: str, readers: Mapping[str, Callable[[str, str], Any]], option: str) -> tuple[str, Any]:
    key, sign, value = (part.strip() for part in text.partition("="))
    if key not in readers:
        raise unknown(f"key of {option}:", key, readers)
    if not sign or not value:
        raise SpecError(f"{option} {text!r} must be {key}=VALUE.")
    return key, readers[key](value, f"{option} {key}")


def _one_of(*words: str) -> Callable[[str, str], str]:
    def read(value: str, where: str) -> str:
        if value not in words:
            raise unknown(f"value of {where}", value, words)
        return value

    return read


def _switch(value: str, where: str) -> bool:
    words = {"true": True, "on": True, "1": True, "false": False, "off": False, "0": False}
    if value not in words:
        raise SpecError(f"{where}={value!r} must be true or false.")
    return words[value]


def _seconds(value: str, where: str) -> float:
    """Seconds of 0.5, 500ms or 200us."""
    found = _SECONDS.fullmatch(value)
    seconds = float(found[1]) * _UNITS[found[2] or ""] if found else -1.0
    if not 0 <= seconds <= 3600:
        raise SpecError(f"{where}={value!r} must be a time such as 0.5, 500ms or 200us, an hour at the most.")
    return seconds


def _whole(least: int, most: int) -> Callable[[str, str], int]:
    def read(value: str, where: str) -> int:
        if not re.fullmatch(r"[0-9]{1,9}", value) or not least <= int(value) <= most:
            raise SpecError(f"{where}={value!r} must be a whole number from {least} to {most}.")
        return int(value)

    return read


def _share(value: str, where: str) -> float:
    """A share of 2.5% or 0.025."""
    percent = value.endswith("%")
    try:
        share = float(value.rstrip("%")) / (100 if percent else 1)
    except ValueError:
        share = -1.0
    if not 0 <= share < 1:
        raise SpecError(f"{where}={value!r} must be a share such as 2.5% or 0.025, under 100%.")
    return share


_TIMING: Mapping[str, Callable[[str, str], Any]] = {
    "as": _one_of(*_TRTEXEC),
    "graph": _switch,
    "spin": _switch,
    "transfers": _switch,
    "warmup_s": _seconds,
    "least_s": _seconds,
    "most_s": _seconds,
    "least": _whole(1, 1_000_000),
    "most": _whole(1, 1_000_000),
    "sample_s": _seconds,
    "pairs": _whole(2, 1000),
    "block_s": _seconds,
}

_GATE: Mapping[str, Callable[[str, str], Any]] = {
    **dict.fromkeys(("margin", "threshold", "detectable", "alpha", "fdr", "power"), _share),
    **{key: _one_of(*ACTIONS) for key in Policy.states()},
}
