"""Policy: what each state does to a case."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from pytest_trt.latency.state import State

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["ACTIONS", "DEFAULTS", "Policy"]

ACTIONS = ("fail", "warn", "pass")
"""A case fails; passes and is told of; passes in silence."""

DEFAULTS: Mapping[State, str] = {
    State.SLOW: "fail",
    State.AMBIGUOUS: "fail",
    State.NO_BASELINE: "fail",
    State.NOT_COMPARABLE: "fail",
    State.RENAMED: "fail",
    State.VANISHED: "fail",
    State.FAST: "warn",
    State.SAME: "pass",
    State.RECORDED: "pass",
}
"""A gate that can't check fails: only SAME and FAST are answers that pass."""


@dataclass(frozen=True)
class Policy:
    """What each state does, where the user says otherwise.

    Attributes:
        told: an action by the state's value.
    """

    told: Mapping[str, str] = field(default_factory=dict)

    def action(self, state: State) -> str:
        """One of :data:`ACTIONS`."""
        return self.told.get(state.value, DEFAULTS[state])

    @staticmethod
    def states() -> list[str]:
        """The states whose action a user may choose."""
        return [state.value for state in DEFAULTS if state not in (State.SAME, State.RECORDED)]
