"""Case: one model to check, as a trt.toml, a marker or the command line describes it."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

import numpy as np

from pytest_trt.backends.backend import known_backend
from pytest_trt.backends.build_options import read_build_options
from pytest_trt.backends.recipe import Span
from pytest_trt.calibration.threshold import read_method
from pytest_trt.case.budgets import Budgets, read_budgets
from pytest_trt.comparison.tolerance import Tolerance, known_weak_bounds
from pytest_trt.errors import CaseError, SpecError, unknown
from pytest_trt.lowering.lowering import known_lowering
from pytest_trt.model.samples import InputSpec
from pytest_trt.precision import Precision
from pytest_trt.storage.entry_point import is_reference

__all__ = ["Case", "cases_of_file", "known_keys", "wrong_name"]

_ILLEGAL = re.compile(r'[\x00-\x1f<>:"/\\|?*\[\]]')
_DEVICE = re.compile(r"(aux|con|nul|prn|conin\$|conout\$|(com|lpt)[0-9¹²³])(\..*)?", re.IGNORECASE)


@dataclass(frozen=True)
class Case:
    """One model to check. Paths are relative to ``base``.

    Attributes:
        name: names the golden; the file's stem or the factory's name if not given.
        onnx: the ONNX file under test.
        torch: ``module:factory`` that returns the torch module under test, in place of ``onnx``.
        reference: fp32 ONNX file or ``module:factory`` that the golden is made from, where the file under
            test was made by another tool (Q/DQ, fp16).
        input: by input name: shape (a str names a dynamic axis), dtype, low, high; needed to export a torch
            module and to draw samples of integer inputs or dynamic axes. One nameless entry has the key "".
        inputs: golden inputs, a file or ``module:function``; drawn with ``seed`` if not given.
        samples: how many to draw.
        seed: for drawing.
        labels: true classes of the golden inputs, to report accuracy.
        class_output: the output that top-1, top-5 and labels speak of; the only float output if not given.
        constant_outputs: outputs that do not depend on the inputs and may stand still.
        nan_outputs: outputs that rightly hold NaN in fp32, which is judged in its place.
        outputs: the outputs that are judged; all if none is named.
        ignore_outputs: outputs that are not judged, in place of ``outputs``.
        weak_bounds: what an output does that is inside a bound which says little: warn (default) or fail.
        calibration: samples for int8 and fp8, a file or ``module:function``; "golden" takes the golden's own inputs.
        calibration_method: how samples become ranges: minmax (default), entropy, percentile or percentile:99.9, mse.
        lowering: what writes a precision into the graph: own, or modelopt (NVIDIA's); own if not given.
        keep: nodes that stay in fp32, each by its name or by a tensor that it computes.
        ops: kinds of operators that are lowered; all that the precision lowers if none is named.
        precisions: what to check when the command line does not say.
        backend: what to run on when the command line does not say.
        tolerance: by precision; replaces the envelope.
        build: how to build the engine: the keys of :class:`BuildOptions`.
        engine: plan that was built elsewhere, to be judged in place of building.
        profiles: optimization profiles, by input name the shapes min, opt and max; taken from the golden if not given.
        golden: golden file, or folder of ``test_data_set_N``, in place of the golden folder's.
        batch: the most samples at once where the first axis is dynamic.
        latency: limits on its latency, by precision; "" for those of every precision.
        output_names: names for a torch module's outputs.
        opset: of a torch module's export.
        base: folder that relative paths start from.
        where: what messages call the place that this case was written in.
        command: the pytest arguments that run this case, for messages.
        written: the keys that it was written with, defaults included; empty where it was made in Python.
    """

    name: str = ""
    onnx: str | None = None
    torch: str | None = None
    reference: str | None = None
    input: Mapping[str, InputSpec] = field(default_factory=dict)
    inputs: str | None = None
    samples: int = 8
    seed: int = 0
    labels: str | None = None
    class_output: str | None = None
    constant_outputs: tuple[str, ...] = ()
    nan_outputs: tuple[str, ...] = ()
    outputs: tuple[str, ...] = ()
    ignore_outputs: tuple[str, ...] = ()
    weak_bounds: str | None = None
    calibration: str | None = None
    calibration_method: str | None = None
    lowering: str | None = None
    keep: tuple[str, ...] = ()
    ops: tuple[str, ...] = ()
    precisions: tuple[str, ...] = ()
    backend: str | None = None
    tolerance: Mapping[str, Tolerance] = field(default_factory=dict)
    build: Mapping[str, Any] = field(default_factory=dict)
    engine: str | None = None
    profiles: tuple[Mapping[str, Span], ...] = ()
    golden: str | None = None
    batch: int | None = None
    latency: Mapping[str, Budgets] = field(default_factory=dict)
    output_names: tuple[str, ...] = ()
    opset: int = 17
    base: Path = Path()
    where: str = "Case"
    command: str = ""
    written: frozenset[str] = field(default=frozenset(), compare=False, repr=False)

    def __post_init__(self) -> None:
        if (self.onnx is None) == (self.torch is None):
            raise CaseError(f"{self.where}: name the model with exactly one of `onnx` and `torch`.")
        if self.outputs and self.ignore_outputs:
            raise CaseError(
                f"{self.where}: `outputs` names what is judged, and `ignore_outputs` what is not: keep one of them."
            )
        if self.inputs and (drawing := self.drawing()):
            keys = quoted_keys(drawing)
            raise CaseError(
                f"{self.where}: `inputs` names the samples, and {keys} would say how to draw them, which is never read:"
                f" drop {keys}, or drop `inputs`."
            )
        if not self.name:
            object.__setattr__(self, "name", _default_name(self))
        wrong = wrong_name(self.name)
        if wrong:
            raise CaseError(f"{self.where}: {wrong}")

    def drawing(self) -> tuple[str, ...]:
        """The keys that only say how inputs are drawn, as far as it says them; a torch module is made by some too."""
        exported = self.torch is not None or (self.reference is not None and is_reference(self.reference))
        keys = ("samples",) if exported else ("samples", "seed", "input")
        told = {"samples": self.samples != Case.samples, "seed": self.seed != Case.seed, "input": bool(self.input)}
        return tuple(key for key in keys if key in self.written or told[key])

    @classmethod
    def from_table(cls, table: Mapping[str, Any], base: Path, where: str, command: str = "") -> Case:
        """Read a ``[[model]]`` table or a marker's arguments.

        Raises:
            SpecError: a key, a precision or a limit is not known; names the nearest.
            CaseError: a value is of the wrong type or range, or the model is not named.
        """
        known = known_keys()
        for key in table:
            if key not in known:
                raise unknown(f"key in {where}:", key, known)
        values = {key: _READERS[key](value, f"{where}: {key}") for key, value in table.items()}
        return cls(**values, base=base, where=where, command=command, written=frozenset(values))


def quoted_keys(keys: Sequence[str]) -> str:
    """Keys as a message names them."""
    return " and ".join(f"`{key}`" for key in keys)


def known_keys() -> list[str]:
    """The keys that a ``[[model]]`` table or the marker may have."""
    return [f.name for f in fields(Case) if f.name not in ("base", "where", "command", "written")]


def cases_of_file(tables: Any, base: Path, where: str) -> list[Case | CaseError]:
    """The cases of one file, in order; one that can't be read is its own error, and so are all of one name.

    Raises:
        SpecError: a word is not known.
    """
    if not isinstance(tables, list):
        return [CaseError(f"{where}: write [[model]] with two brackets, one table a model.")]
    labels = [f"{where}: model {_label(table, number)}" for number, table in enumerate(tables, 1)]
    found = [_case(table, base, label) for table, label in zip(tables, labels, strict=True)]
    # Windows and macOS know no case of letters, and goldens are checked out there too
    names = [case.name.casefold() for case in found if isinstance(case, Case)]
    return [
        _of_one_name(case) if isinstance(case, Case) and names.count(case.name.casefold()) > 1 else case
        for case in found
    ]


def wrong_name(name: str) -> str:
    """Why no case can have this name, which is that of files on every system; empty where one can."""
    if not name or _ILLEGAL.search(name) or name.strip(". ") != name or len(name) > 200:
        return (
            f"the name {name!r} can't be a golden's file name: leave out control characters,"
            ' < > : " / \\ | ? * [ ] and outer dots and spaces, and keep it under 200 characters.'
        )
    if _DEVICE.fullmatch(name):
        return (
            f"the name {name!r} is that of a device on Windows, where its golden could not be checked out: give the"
            " case another `name`."
        )
    if name.endswith(".candidate"):
        return f"the name {name!r} is that of another golden's candidate: leave out .candidate."
    return ""


def _of_one_name(case: Case) -> CaseError:
    return CaseError(
        f"{case.where}: another model of this file is called {case.name!r} too (Windows and macOS know no case of"
        " letters), and they would share one golden. Give each its own `name`; neither was checked."
    )


def _label(table: Any, number: int) -> str:
    name = table.get("name") if isinstance(table, Mapping) else None
    return repr(name) if isinstance(name, str) else f"number {number}"


def _case(table: Any, base: Path, where: str) -> Case | CaseError:
    if not isinstance(table, Mapping):
        return CaseError(f"{where} is {table!r}: write a table, [[model]].")
    try:
        return Case.from_table(table, base, where)
    except CaseError as error:
        return error


def _default_name(case: Case) -> str:
    if case.onnx is not None:
        path = Path(case.onnx)
        # the ONNX model zoo calls every file model.onnx: there the folder tells which one
        generic = path.stem == "model" and (case.base / path).resolve().parent.name
        return str(generic or path.stem)
    return str(case.torch).rpartition(":")[2]


def _text(value: Any, where: str) -> str:
    if isinstance(value, Path):
        return str(value)
    if not isinstance(value, str) or not value:
        raise CaseError(f"{where} = {value!r} must be a text that is not empty.")
    return value


def _texts(value: Any, where: str) -> tuple[str, ...]:
    items = [value] if isinstance(value, str) else value
    if not isinstance(items, (list, tuple)) or not items:
        raise CaseError(f"{where} = {value!r} must be a list of texts that is not empty.")
    return tuple(_text(item, where) for item in items)


def _count(least: int) -> Any:
    def read(value: Any, where: str) -> int:
        if isinstance(value, bool) or not isinstance(value, int) or value < least:
            raise CaseError(f"{where} = {value!r} must be a whole number of at least {least}.")
        return value

    return read


def _precisions(value: Any, where: str) -> tuple[str, ...]:
    return tuple(dict.fromkeys(_parsed(label, where).label for label in _texts(value, where)))


def _parsed(label: str, where: str) -> Precision:
    try:
        return Precision.parse(label)
    except SpecError as error:
        raise SpecError(f"{where}: {error}") from error


def _tolerances(value: Any, where: str) -> dict[str, Tolerance]:
    if not isinstance(value, Mapping):
        raise CaseError(f"{where} = {value!r} must hold a table a precision: tolerance.int8 = {{ rel_rms = 0.05 }}.")
    return {
        _parsed(str(label), where).label: Tolerance.from_table(table, f"{where}.{label}")
        for label, table in value.items()
    }


def _inputs(value: Any, where: str) -> dict[str, InputSpec]:
    if not isinstance(value, Mapping):
        raise CaseError(f"{where} = {value!r} must be a table: input = {{ shape = [1, 3, 224, 224] }}.")
    if not any(isinstance(entry, Mapping) for entry in value.values()):
        return {"": _input(value, where)}
    return {str(name): _input(entry, f"{where}.{name}") for name, entry in value.items()}


def _input(value: Any, where: str) -> InputSpec:
    known = [f.name for f in fields(InputSpec)]
    if not isinstance(value, Mapping):
        raise unknown(f"key in {where.rpartition('.')[0]}:", where.rpartition(".")[2], known)
    for key in value:
        if key not in known:
            raise unknown(f"key in {where}:", key, known)
    shape = value.get("shape")
    axes = isinstance(shape, (list, tuple)) and all(
        isinstance(axis, str) or (isinstance(axis, int) and not isinstance(axis, bool) and axis > 0) for axis in shape
    )
    if shape is not None and not axes:
        raise CaseError(f"{where}.shape = {shape!r} must be a list of positive sizes, or names for dynamic axes.")
    for bound in ("low", "high"):
        if bound in value and not _is_finite(value[bound]):
            raise CaseError(f"{where}.{bound} = {value[bound]!r} must be a finite number.")
    if ("low" in value) != ("high" in value) or ("low" in value and value["low"] > value["high"]):
        raise CaseError(f"{where}: give both low and high, low not above high.")
    _require_dtype(value.get("dtype"), where)
    return InputSpec(**{**value, "shape": None if shape is None else tuple(shape)})


def _is_finite(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)


def _require_dtype(name: Any, where: str) -> None:
    if name is None:
        return
    try:
        known = isinstance(name, str) and np.dtype(name).kind in "biuf"
    except TypeError:
        known = False
    if not known:
        raise CaseError(f"{where}.dtype = {name!r} is no numeric dtype of numpy, like 'float32' or 'int64'.")


def _backend(value: Any, where: str) -> str:
    try:
        return known_backend(_text(value, where))
    except SpecError as error:
        raise SpecError(f"{where}: {error}") from error


def _lowering(value: Any, where: str) -> str:
    try:
        return str(known_lowering(_text(value, where)))
    except SpecError as error:
        raise SpecError(f"{where}: {error}") from error


def _method(value: Any, where: str) -> str:
    try:
        return str(read_method(_text(value, where)))
    except SpecError as error:
        raise SpecError(f"{where}: {error}") from error


def _weak_bounds(value: Any, where: str) -> str:
    try:
        return known_weak_bounds(_text(value, where))
    except SpecError as error:
        raise SpecError(f"{where}: {error}") from error


def _build(value: Any, where: str) -> dict[str, Any]:
    if not isinstance(value, Mapping):
        raise CaseError(f'{where} = {value!r} must be a table: build = {{ workspace = "2G" }}.')
    return read_build_options(value, where)


def _profiles(value: Any, where: str) -> tuple[dict[str, Span], ...]:
    tables = [value] if isinstance(value, Mapping) else value
    if not isinstance(tables, (list, tuple)) or not tables or not all(isinstance(table, Mapping) for table in tables):
        raise CaseError(
            f"{where} = {value!r} must be a table an optimization profile:"
            " profiles = [{ x = { min = [1, 3, 32, 32], opt = [8, 3, 32, 32], max = [16, 3, 32, 32] } }]."
        )
    return tuple({str(name): _span(span, f"{where}.{name}") for name, span in table.items()} for table in tables)


def _span(value: Any, where: str) -> Span:
    keys = ("min", "opt", "max")
    found: list[Any] = (
        [value.get(key) for key in keys] if isinstance(value, Mapping) and set(value) == set(keys) else []
    )
    if not found or not all(_are_sizes(axes) for axes in found) or len({len(axes) for axes in found}) != 1:
        raise CaseError(f"{where} = {value!r} must have min, opt and max, each a list of as many sizes.")
    if not all(low <= best <= high for low, best, high in zip(*found, strict=True)):
        raise CaseError(f"{where}: min, opt and max must not fall: {found[0]}, {found[1]}, {found[2]}.")
    return Span(*(tuple(axes) for axes in found))


def _are_sizes(axes: Any) -> bool:
    return isinstance(axes, (list, tuple)) and all(type(axis) is int and axis >= 0 for axis in axes)


_READERS: Mapping[str, Any] = {
    "name": _text,
    "onnx": _text,
    "torch": _text,
    "reference": _text,
    "input": _inputs,
    "inputs": _text,
    "samples": _count(1),
    "seed": _count(0),
    "labels": _text,
    "class_output": _text,
    "constant_outputs": _texts,
    "nan_outputs": _texts,
    "outputs": _texts,
    "ignore_outputs": _texts,
    "weak_bounds": _weak_bounds,
    "calibration": _text,
    "calibration_method": _method,
    "lowering": _lowering,
    "keep": _texts,
    "ops": _texts,
    "precisions": _precisions,
    "backend": _backend,
    "tolerance": _tolerances,
    "build": _build,
    "engine": _text,
    "profiles": _profiles,
    "golden": _text,
    "batch": _count(1),
    "latency": read_budgets,
    "output_names": _texts,
    "opset": _count(1),
}
