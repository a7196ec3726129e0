"""Profile: the shapes that an engine with dynamic axes is built for."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from pytest_trt.errors import CaseError

if TYPE_CHECKING:
    from collections.abc import Iterable

    from pytest_trt.feeds import Arrays
    from pytest_trt.model import TensorSpec

__all__ = ["Profile", "Span", "is_dynamic", "profile_of_feeds", "require_fit"]


@dataclass(frozen=True)
class Span:
    """What a profile covers of one input: its shapes, or for a shape input its values."""

    min: tuple[int, ...]
    opt: tuple[int, ...]
    max: tuple[int, ...]


Profile = Mapping[str, Span]
"""An optimization profile: by input name what it covers."""


def is_dynamic(spec: TensorSpec) -> bool:
    """Whether an axis of the input, or its rank, is left open."""
    return spec.shape is None or not all(isinstance(axis, int) for axis in spec.shape)


def profile_of_feeds(feeds: Iterable[Arrays], specs: Iterable[TensorSpec]) -> Profile:
    """The profile that covers these runs: the least and largest size of each axis, and the most frequent shape.

    Args:
        feeds: runs of arrays by input name, cut as they will be fed.
        specs: the model's inputs; those without a dynamic axis are left out.
    """
    runs = list(feeds)
    return {spec.name: _span([run[spec.name].shape for run in runs]) for spec in specs if is_dynamic(spec) and runs}


def require_fit(profile: Profile, specs: Iterable[TensorSpec], where: str) -> None:
    """Refuse a profile that is not of these inputs.

    Raises:
        CaseError: an input is not the model's, a dynamic one is missing, or a fixed axis has another size.
    """
    by_name = {spec.name: spec for spec in specs}
    for name, span in profile.items():
        if name not in by_name:
            raise CaseError(f"{where}: {name!r} is no input of the model, which has {', '.join(map(repr, by_name))}.")
        _require_axes(span, by_name[name], where)
    missing = [name for name, spec in by_name.items() if is_dynamic(spec) and name not in profile]
    if missing:
        raise CaseError(f"{where}: the dynamic input {missing[0]!r} has no shapes in it. Write its min, opt and max.")


def _span(shapes: list[tuple[int, ...]]) -> Span:
    axes = list(zip(*shapes, strict=True))
    usual = Counter(shapes).most_common(1)[0][0]
    return Span(tuple(min(sizes) for sizes in axes), usual, tuple(max(sizes) for sizes in axes))


def _require_axes(span: Span, spec: TensorSpec, where: str) -> None:
    if spec.shape is None or not spec.shape:
        return
    if len(spec.shape) == 1 and spec.dtype.kind in "iu":
        return  # a shape input, whose values are given
    fixed = [(number, axis) for number, axis in enumerate(spec.shape) if isinstance(axis, int)]
    if len(span.min) != len(spec.shape) or any(
        sizes[number] != axis for number, axis in fixed for sizes in (span.min, span.opt, span.max)
    ):
        raise CaseError(f"{where}: the shapes of {spec.name!r} do not fit the model's {spec}.")
