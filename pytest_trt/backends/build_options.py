"""Build options: how an engine is built, in the words that users of trtexec know.

One table says them all: ``build = { workspace = "2G" }`` in a case, ``--trt-build workspace=2G`` on the command line.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, fields, replace
from typing import TYPE_CHECKING, Any

from pytest_trt.errors import BackendError, SpecError, unknown

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Mapping
    from pathlib import Path

__all__ = [
    "LISTS",
    "BuildOptions",
    "anchored",
    "merged",
    "read_build_options",
    "read_typing",
    "read_word",
    "require_words",
]

LISTS = ("plugins", "tactic_sources", "compute_capabilities")
"""Options that take several texts."""

_MOST_BYTES = 2**63 - 1
_SIZE = re.compile(r"(\d{1,15}(?:\.\d{1,9})?) *([KMG]?)(?:I?B)?", re.ASCII | re.IGNORECASE)


@dataclass(frozen=True)
class BuildOptions:
    """How to build; what is None is left to TensorRT.

    Attributes:
        typing: "strong" builds the lowered model as it is written, "weak" leaves it fp32 and gives the builder flags
            (TensorRT 8 to 10), "auto" is strong where the release has strongly typed networks.
        calibrator: for weak int8: "ranges" (dynamic ranges from our calibration), "entropy" or "minmax" (TensorRT's).
        calibration_cache: file that TensorRT's calibrator reads, and writes where it is missing.
        fallback: for weak int8, what the layers that do not run in int8 may use beside fp32: "fp32" or "fp16".
        honoured: least share of the compute layers that must run in the asked precision, 0 to 1.
        workspace: most scratch memory, in bytes.
        optimization_level: 0 (fast build) to 5.
        tactic_sources: names, in place of the release's default; empty for none.
        timing_cache: file of your own, in place of the store's.
        hardware_compatibility: "none", "ampere_plus" or "same_compute_capability".
        version_compatible: the plan loads in later releases of the same major version.
        refit: weights of the plan can be exchanged.
        sparsity: structured sparsity is used where the weights have it.
        dla_core: number of the DLA core to run on.
        gpu_fallback: layers that DLA can't run go to the GPU.
        device: index of the GPU.
        plugins: plugin libraries to load first.
        compute_capabilities: for TensorRT-RTX: GPUs to build for ("8.9"), which needs no GPU here.
    """

    typing: str = "auto"
    calibrator: str = "ranges"
    calibration_cache: str | None = None
    fallback: str = "fp32"
    honoured: float = 0.5
    workspace: int | None = None
    optimization_level: int | None = None
    tactic_sources: tuple[str, ...] | None = None
    timing_cache: str | None = None
    hardware_compatibility: str = "none"
    version_compatible: bool = False
    refit: bool = False
    sparsity: bool = False
    dla_core: int | None = None
    gpu_fallback: bool = False
    device: int = 0
    plugins: tuple[str, ...] = ()
    compute_capabilities: tuple[str, ...] = ()


def read_build_options(table: Mapping[str, Any], where: str) -> dict[str, Any]:
    """The values of a ``build`` table, each read and checked; only those that were written.

    Raises:
        SpecError: a key or a word is not known, or a value is out of range; names the nearest.
    """
    for key in table:
        if key not in _READERS:
            raise unknown(f"build option in {where}:", key, _READERS)
    joint = " " if where.startswith("--") else "."
    return {key: _READERS[key](value, f"{where}{joint}{key}") for key, value in table.items()}


def read_typing(text: str, where: str) -> str:
    """The typing.

    Raises:
        SpecError: it is not known; names the nearest.
    """
    return str(_READERS["typing"](text, where))


def read_word(text: str) -> tuple[str, str]:
    """KEY and VALUE of one ``--trt-build KEY=VALUE``; a key alone switches on.

    Raises:
        SpecError: the key is not known, or the value is out of range.
    """
    key, sign, value = (part.strip() for part in text.partition("="))
    read_build_options({key: value if sign else "true"}, "--trt-build")
    return key, value if sign else "true"


def merged(*tables: Mapping[str, Any]) -> BuildOptions:
    """The options of several tables that were read; the later one counts."""
    options = BuildOptions()
    for table in tables:
        options = replace(options, **table)
    return options


def anchored(values: Mapping[str, Any], base: Path) -> dict[str, Any]:
    """The values that were read, their relative paths taken from ``base``."""
    paths = {key: str(base / values[key]) for key in ("calibration_cache", "timing_cache") if key in values}
    plugins = {"plugins": tuple(str(base / path) for path in values["plugins"])} if "plugins" in values else {}
    return {**values, **paths, **plugins}


def require_words(options: BuildOptions, words: Collection[str], backend: str) -> None:
    """Refuse what a backend could only drop.

    Args:
        options: what was asked.
        words: names of the options that the backend has a word for.
        backend: its name.

    Raises:
        BackendError: another option is not at its default.
    """
    plain = BuildOptions()
    for option in fields(options):
        value = getattr(options, option.name)
        if option.name not in words and value != getattr(plain, option.name):
            raise BackendError(
                f"backend {backend!r} has no word for the build option {option.name} = {value!r}, and would drop it:"
                " leave it out, or choose --trt-backend=tensorrt."
            )


def _one_of(*words: str) -> Callable[[Any, str], str]:
    def read(value: Any, where: str) -> str:
        if value not in words:
            raise unknown(f"value of {where}", str(value), words)
        return str(value)

    return read


def _whole(least: int, most: int | None = None) -> Callable[[Any, str], int]:
    def read(value: Any, where: str) -> int:
        number = int(value) if isinstance(value, str) and re.fullmatch(r"[0-9]{1,9}", value) else value
        whole = isinstance(number, int) and not isinstance(number, bool)
        if not whole or number < least or (most is not None and number > most):
            limit = f"from {least} to {most}" if most is not None else f"of at least {least}"
            raise SpecError(f"{where} = {value!r} must be a whole number {limit}.")
        return int(number)

    return read


def _share(value: Any, where: str) -> float:
    try:
        share = float(value)
    except (TypeError, ValueError):
        share = -1.0
    if isinstance(value, bool) or not 0 <= share <= 1:
        raise SpecError(f"{where} = {value!r} must be a share from 0 to 1.")
    return share


def _switch(value: Any, where: str) -> bool:
    words = {True: True, False: False, "true": True, "false": False, "on": True, "off": False, "1": True, "0": False}
    if not isinstance(value, (bool, str)) or value not in words:
        raise SpecError(f"{where} = {value!r} must be true or false.")
    return words[value]


def _text(value: Any, where: str) -> str:
    if not isinstance(value, str) or not value.strip():
        raise SpecError(f"{where} = {value!r} must be a text that is not empty.")
    return value.strip()


def _texts(value: Any, where: str) -> tuple[str, ...]:
    items = value.split(",") if isinstance(value, str) else value
    if not isinstance(items, (list, tuple)):
        raise SpecError(f"{where} = {value!r} must be a list of texts.")
    return tuple(_text(item, where) for item in items)


def _sources(value: Any, where: str) -> tuple[str, ...]:
    return () if value in ("none", []) else tuple(name.upper() for name in _texts(value, where))


def _bytes(value: Any, where: str) -> int:
    """A size such as 512M, 2G or 4096K; a bare number is MiB, as trtexec takes it."""
    found = None if isinstance(value, bool) else _SIZE.fullmatch(str(value).strip())
    units = {"K": 2**10, "M": 2**20, "G": 2**30}
    size = int(float(found[1]) * units[found[2].upper() or "M"]) if found else 0
    if not 0 < size <= _MOST_BYTES:
        raise SpecError(f'{where} = {value!r} must be a size such as "512M" or "2G" (a bare number is MiB).')
    return size


def _capabilities(value: Any, where: str) -> tuple[str, ...]:
    items = value if isinstance(value, (list, tuple)) else [value]
    told = [str(item) if isinstance(item, float) else item for item in items]
    texts = tuple(text for item in told for text in _texts(item, where))
    for text in texts:
        if not re.fullmatch(r"[0-9]{1,2}\.[0-9]", text):
            raise SpecError(f'{where} = {value!r} must be compute capabilities such as "8.9".')
    return texts


_READERS: dict[str, Callable[[Any, str], Any]] = {
    "typing": _one_of("auto", "weak", "strong"),
    "calibrator": _one_of("ranges", "entropy", "minmax"),
    "calibration_cache": _text,
    "fallback": _one_of("fp32", "fp16"),
    "honoured": _share,
    "workspace": _bytes,
    "optimization_level": _whole(0, 5),
    "tactic_sources": _sources,
    "timing_cache": _text,
    "hardware_compatibility": _one_of("none", "ampere_plus", "same_compute_capability"),
    "version_compatible": _switch,
    "refit": _switch,
    "sparsity": _switch,
    "dla_core": _whole(0),
    "gpu_fallback": _switch,
    "device": _whole(0),
    "plugins": _texts,
    "compute_capabilities": _capabilities,
}
