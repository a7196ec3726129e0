"""Question: the inputs and labels that a golden answers, by their SHA-256, and whether its case still asks them."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING, Any

import numpy as np

from pytest_trt.case.reference import mend
from pytest_trt.errors import CaseError, DataError, StaleGolden
from pytest_trt.model.feeds import finite, join
from pytest_trt.model.samples import InputSpec, generate, read, read_array
from pytest_trt.storage.entry_point import is_reference

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from numpy.typing import NDArray

    from pytest_trt.case.case import Case
    from pytest_trt.case.reference import Reference
    from pytest_trt.golden.golden import Golden
    from pytest_trt.model.feeds import Arrays

__all__ = ["inputs_of", "labels_of", "question_of", "require_asked"]


def inputs_of(case: Case, reference: Reference) -> Arrays:
    """The inputs that the case names, or those drawn for it.

    Raises:
        DataError, CaseError: they can't be read or drawn, or do not fit the model.
    """
    specs = reference.model.inputs
    if case.inputs:
        arrays = join(list(read(case.inputs, case.base, specs, f"{case.where}: inputs")))
        finite(arrays, f"{case.where}: inputs {case.inputs!r}", allow_infinite=True)
        return arrays
    told = _told(case, reference)
    stray = [name for name in told if name not in {spec.name for spec in specs}]
    if stray:
        raise CaseError(
            f"{case.where}: input.{stray[0]} is no input of {reference.model.source}, which has"
            f" {', '.join(str(spec) for spec in specs)}."
        )
    return generate(specs, told, case.samples, case.seed, case.where)


def labels_of(case: Case) -> NDArray[Any] | None:
    """The array that the case names as its labels.

    Raises:
        DataError, CaseError: it can't be read.
    """
    return None if case.labels is None else read_array(case.labels, case.base, f"{case.where}: labels")


def question_of(case: Case, reference: Reference, inputs: Arrays, labels: NDArray[Any] | None) -> dict[str, Any]:
    """What a golden keeps of its question: where the arrays are from, and which they are."""
    asked = {"inputs": {**_origin(case, "inputs", reference), "arrays": _digest(inputs)}}
    if labels is not None:
        asked["labels"] = {**_origin(case, "labels", reference), "arrays": _digest_of_labels(labels)}
    return asked


def require_asked(case: Case, golden: Golden, reference: Reference) -> None:
    """Refuse a golden of another question than its case asks now.

    Arrays are read, drawn or asked of a function only where the bytes of the file, or what is drawn, are not the same.

    Raises:
        StaleGolden: inputs or labels are others; the message says which key.
        DataError, CaseError: a file is missing, or what is named can't be read or called.
    """
    for key in ("inputs", "labels"):
        _require_file(case, key)
    asked = golden.provenance.get("question")
    if not asked:
        return
    for key, why in _others(case, asked, reference):
        raise StaleGolden(
            f"the golden {golden.source} is stale: it answers another question than {case.where} asks now, by `{key}`:"
            f" {why}. If that was changed on purpose, make the golden anew and review what it prints: {mend(case)}",
            {"key": key},
        )


def _others(case: Case, asked: Mapping[str, Any], reference: Reference) -> Iterator[tuple[str, str]]:
    """The keys by which the case asks something else, each with what it is now."""
    if not _says_nothing(case):
        yield from _other_inputs(case, asked["inputs"], reference)
    if case.labels is not None:
        yield from _other_labels(case, case.labels, asked.get("labels"), reference)


def _takes_as_it_is(case: Case) -> bool:
    """Whether a golden is named by its file, or the model on the command line, which has no words for its inputs."""
    return case.golden is not None or case.command.startswith("--trt-model")


def _says_nothing(case: Case) -> bool:
    drawn = (case.samples, case.seed, bool(case.input)) != (8, 0, False)
    return _takes_as_it_is(case) and not case.inputs and not drawn


def _other_inputs(case: Case, kept: Mapping[str, Any], reference: Reference) -> Iterator[tuple[str, str]]:
    origin = _origin(case, "inputs", reference)
    if _same_origin(origin, kept) or _digest(inputs_of(case, reference)) == kept["arrays"]:
        return
    if case.inputs:
        yield "inputs", _not_those(case.inputs, kept)
    elif "drawn" not in kept:
        yield "inputs", f"they are drawn now, and {_of(kept)} when it was made"
    else:
        yield next(_other_drawn(kept["drawn"], origin["drawn"]), ("inputs", "other samples are drawn now"))


def _other_labels(
    case: Case, labels: str, kept: Mapping[str, Any] | None, reference: Reference
) -> Iterator[tuple[str, str]]:
    if kept is None:
        yield "labels", f"they are {labels!r} now, and there were none when it was made"
    elif not _same_origin(_origin(case, "labels", reference), kept):
        now = labels_of(case)
        if now is None or _digest_of_labels(now) != kept["arrays"]:
            yield "labels", _not_those(labels, kept)


def _not_those(source: str, kept: Mapping[str, Any]) -> str:
    steady = " (a function must give the same arrays each time)" if is_reference(source) else ""
    return f"{source!r} holds other arrays than it was made from, which {_of(kept)}{steady}"


def _of(kept: Mapping[str, Any]) -> str:
    return f"were those of {kept['source']!r}" if "source" in kept else "were drawn"


def _other_drawn(kept: Mapping[str, Any], now: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    for key in ("samples", "seed"):
        if kept[key] != now[key]:
            yield key, f"it is {now[key]} now, and was {kept[key]}"
    for name in dict.fromkeys([*kept["input"], *now["input"]]):
        before, after = kept["input"].get(name, {}), now["input"].get(name, {})
        for key in ("shape", "dtype", "low", "high"):
            if before.get(key) != after.get(key):
                yield f"input.{name}.{key}", f"it is {after.get(key)} now, and was {before.get(key)}"


def _same_origin(now: Mapping[str, Any], kept: Mapping[str, Any]) -> bool:
    """Whether the arrays need not be looked at: bytes of one file, or drawn alike."""
    return any(key in now and now[key] == kept.get(key) for key in ("file", "drawn"))


def _origin(case: Case, key: str, reference: Reference) -> dict[str, Any]:
    """Where arrays come from: a file with its hash, a function, or how they are drawn."""
    source = getattr(case, key)
    if source:
        return {"source": source} if _is_function(case, source) else {"source": source, "file": _file_hash(case, key)}
    told = {name: _spec(spec) for name, spec in sorted(_told(case, reference).items())}
    return {"drawn": {"samples": case.samples, "seed": case.seed, "input": told}}


def _told(case: Case, reference: Reference) -> dict[str, InputSpec]:
    return {name or reference.model.inputs[0].name: spec for name, spec in case.input.items()}


def _spec(spec: InputSpec) -> dict[str, Any]:
    """As JSON gives it back."""
    told = {"shape": spec.shape and list(spec.shape), "dtype": spec.dtype, "low": spec.low, "high": spec.high}
    return {key: value for key, value in told.items() if value is not None}


def _is_function(case: Case, source: str) -> bool:
    return is_reference(source) and not (case.base / source).exists()


def _require_file(case: Case, key: str) -> None:
    source = getattr(case, key)
    if source and not _is_function(case, source) and not (case.base / source).is_file():
        raise DataError(
            f"{case.where}: {key} = {source!r}: there is no file {case.base / source}, so nobody can say whether the"
            " golden answers what the case asks. Bring it back, or name the data that there is."
        )


def _file_hash(case: Case, key: str) -> str:
    path = case.base / getattr(case, key)
    seen = hashlib.sha256()
    try:
        with path.open("rb") as file:
            while block := file.read(1 << 20):
                seen.update(block)
    except OSError as error:
        raise DataError(f"{case.where}: {key}: {path} can't be read: {error.strerror or error}.") from error
    return seen.hexdigest()


def _digest(arrays: Arrays) -> str:
    seen = hashlib.sha256()
    for name, array in sorted(arrays.items()):
        seen.update(repr((name, array.dtype.name, array.shape)).encode())
        seen.update(np.ascontiguousarray(array).tobytes())
    return seen.hexdigest()


def _digest_of_labels(labels: NDArray[Any]) -> str:
    """Of the classes, whatever whole type they are stored in."""
    return _digest({"": labels.astype(np.int64) if labels.dtype.kind in "iu" else labels})
