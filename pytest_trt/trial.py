"""Trial: a case that ran, with all that looking for reasons has to run again."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from pytest_trt.findings.codes import Choice

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from pytest_trt.backends import Backend, Engine
    from pytest_trt.case import Case
    from pytest_trt.feeds import Arrays
    from pytest_trt.golden import Golden
    from pytest_trt.model import Model
    from pytest_trt.precision import Precision
    from pytest_trt.recipe import Recipe
    from pytest_trt.verdict import Judgement

__all__ = ["Built", "Scrutiny", "Trial"]


@dataclass(frozen=True)
class Scrutiny:
    """How closely a case is looked at.

    Attributes:
        choice: which findings count.
        localise: whether to look for the tensors that the error comes from, also where the case passed.
        rebuilds: how many times an engine is built again, to be judged as the first.
    """

    choice: Choice = field(default_factory=Choice)
    localise: bool = False
    rebuilds: int = 0


@dataclass(frozen=True)
class Built:
    """An engine, with what it was built from and by."""

    engine: Engine
    recipe: Recipe
    backend: Backend


@dataclass(frozen=True)
class Trial:
    """A case that ran.

    Attributes:
        case: what was checked.
        precision: what was asked.
        held: the precision that the file under test holds.
        model: under test.
        golden: the reference.
        outputs: one set a run of the golden.
        judged: outputs against the golden, one judgement an output.
        built: what ran, where we built it; None for outputs of the user's own code.
    """

    case: Case
    precision: Precision
    held: str
    model: Model
    golden: Golden
    outputs: Sequence[Arrays]
    judged: Callable[[list[Arrays]], tuple[Judgement, ...]]
    built: Built | None = None

    @property
    def feeds(self) -> list[Arrays]:
        """Inputs, one set a run."""
        return [run.inputs for run in self.golden.runs]
