"""TRT301 to TRT306: each sign planted in an output, and a healthy twin that shows nothing."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import pytest

from pytest_trt.comparison.comparison import compare
from pytest_trt.comparison.parts import Part
from pytest_trt.comparison.tolerance import Tolerance
from pytest_trt.evidence.evidence import Evidence
from pytest_trt.evidence.hops import Hop
from pytest_trt.evidence.judgement import limited
from pytest_trt.evidence.output_errors import observe
from pytest_trt.findings.diagnosis import diagnose
from pytest_trt.golden.golden import Run
from pytest_trt.precision import Precision

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from pytest_trt.evidence.finding import Finding

DRAW = np.random.default_rng(0)
LOGITS = DRAW.standard_normal((16, 10)).astype(np.float32)
MAPS = DRAW.standard_normal((4, 8, 12, 12)).astype(np.float32)
NOISE = DRAW.standard_normal((16, 10)).astype(np.float32)


def found(
    actual: NDArray[np.generic],
    reference: NDArray[np.generic] = LOGITS,
    bound: float = 0.01,
    hops: tuple[Hop, ...] = (),
    ranking: bool = False,
    **others: NDArray[np.generic],
) -> list[Finding]:
    run = Run({}, {"out": reference, **others})
    limits = Tolerance(mismatch=bound) if reference.dtype.kind == "i" else Tolerance(rel_rms=bound)
    part = Part("out")
    judgement = limited(part, actual, run, limits, "envelope", "make it anew")
    if ranking:
        judgement = replace(judgement, comparison=compare(actual, reference, ranking=True))
    evidence = Evidence(
        case="net",
        precision=Precision.INT8,
        held="fp32",
        backend="tensorrt",
        simulated=False,
        observed=observe([judgement], [run], [{"out": actual, **others}]),
        hops=hops,
    )
    return list(diagnose(evidence))


def codes(*args: object, **options: object) -> list[str]:
    return [finding.code for finding in found(*args, **options)]  # type: ignore[arg-type]


def test_an_output_inside_its_bound_shows_nothing() -> None:
    assert codes(LOGITS + np.float32(0.005) * NOISE) == []


def test_rounding_that_is_too_coarse_is_outside_and_nothing_else() -> None:
    assert codes(LOGITS + np.float32(0.05) * NOISE) == ["TRT302"]
    assert codes(LOGITS + np.float32(0.05) * NOISE, bound=0.1) == []


def test_a_nan_is_told_with_its_place() -> None:
    broken = LOGITS.copy()
    broken[3, 4] = np.nan

    [finding] = found(broken)

    assert (finding.code, finding.evidence["first"]) == ("TRT301", [3, 4])
    assert "holds 1 NaN or infinities" in finding.message


def test_an_infinity_that_the_output_lacks_is_told_the_right_way_round() -> None:
    forbidden = LOGITS.copy()
    forbidden[:, 2] = -np.inf

    [finding] = found(np.where(np.isinf(forbidden), np.float32(-65504), forbidden), forbidden)

    assert finding.code == "TRT301"
    assert finding.message.startswith(
        "output 'out' lacks 16 NaN or infinities that the golden has, the first at [0, 2]"
    )


def test_what_an_output_holds_and_what_it_lacks_are_counted_apart() -> None:
    forbidden, broken = LOGITS.copy(), LOGITS.copy()
    forbidden[:, 2], broken[5, 1] = -np.inf, np.nan

    [finding] = found(broken, forbidden)

    assert "holds 1 NaN or infinities that the golden has not and lacks 16" in finding.message
    assert finding.evidence["first"] == [5, 1]


def test_a_nan_of_the_golden_too_is_none() -> None:
    both = LOGITS.copy()
    both[3, 4] = np.inf

    assert codes(both, both) == []


def test_an_output_that_ignores_its_input_is_constant_even_inside_a_wide_bound() -> None:
    assert codes(np.repeat(LOGITS[:1], 16, axis=0), bound=9.0) == ["TRT305"]
    assert codes(np.repeat(LOGITS[:1], 16, axis=0), np.repeat(LOGITS[:1], 16, axis=0)) == []


def test_a_zeroed_class_is_concentrated_there_and_named() -> None:
    broken = LOGITS.copy()
    broken[:, 7] = 0

    still, first = found(broken)[:2]

    assert (still.code, still.evidence["axis"], still.evidence["slices"]) == ("TRT305", 1, [7])
    assert (first.code, first.evidence["place"], first.evidence["index"]) == ("TRT306", "class", 7)
    assert first.evidence["resemblance"] == "class 7 is zero throughout"


def test_a_class_that_fires_once_and_never_again_is_told_by_its_slice() -> None:
    scores = np.abs(1e-3 * DRAW.standard_normal((8, 6, 200))).astype(np.float32)
    scores[np.arange(8), np.arange(8) % 6, 7] = 0.9
    scores[:, 3] = 1e-3
    scores[2, 3, 50] = 0.2
    broken = scores.copy()
    broken[:, 3] = 0

    first = found(broken, scores, bound=0.3)[0]

    assert (first.code, first.evidence["slices"]) == ("TRT305", [3])


def test_a_column_that_loses_the_rim_of_what_is_seen_to_the_background_may_stand_still() -> None:
    seen = np.zeros((4, 1, 40, 40), np.float32)
    seen[0, 0, 5:15, 4:20] = seen[1, 0, 20:24, 8:27] = seen[2, 0, 3:30, 9:20] = seen[3, 0, 8:10, 4:20] = 1
    narrow, blind = seen.copy(), seen.copy()
    narrow[..., 26], blind[..., 10:14] = 0, 0

    assert codes(narrow, seen, bound=0.3) == []
    assert "TRT305" in codes(blind, seen, bound=0.3)


def test_a_slice_that_moves_by_less_than_the_part_may_err_may_stand_still() -> None:
    small = LOGITS.copy()
    small[:, 7] *= 1e-3
    rounded = small.copy()
    rounded[:, 7] = 0

    assert codes(rounded, small) == []


def test_one_channel_of_a_map_is_named_and_noise_everywhere_is_not() -> None:
    broken = MAPS.copy()
    broken[:, 5] *= 1.3
    noisy = MAPS + np.float32(0.1) * DRAW.standard_normal(MAPS.shape).astype(np.float32)

    assert [found(broken, MAPS)[0].evidence[key] for key in ("place", "index")] == ["channel", 5]
    assert codes(noisy, MAPS) == ["TRT302"]


def test_a_channel_that_holds_the_signal_may_hold_the_error() -> None:
    loud = MAPS.copy()
    loud[:, 5] *= 100

    assert codes(loud * np.float32(1.02) + np.float32(0.01) * MAPS, loud) == ["TRT302"]


@pytest.mark.parametrize(("place", "rows", "columns"), [("border", 0, 12), ("corner", 2, 5)])
def test_an_error_at_the_border_or_in_a_corner_is_named(place: str, rows: int, columns: int) -> None:
    broken = MAPS.copy()
    broken[:, :, rows, :columns] += 1

    first = found(broken, MAPS)[0]

    assert first.evidence["place"] == place


def test_a_shift_of_all_values_is_a_bias_and_noise_is_none() -> None:
    first = found(LOGITS + np.float32(0.3))[0]

    assert first.code == "TRT304"
    assert first.evidence["mean"] == pytest.approx(0.3, rel=1e-5)
    assert "TRT304" not in codes(LOGITS + np.float32(0.3) * NOISE)


def test_a_shift_by_position_is_a_bias_too() -> None:
    assert codes(LOGITS + np.float32(0.3) * NOISE[:1])[0] == "TRT304"


def test_a_class_that_flips_against_its_margin_is_told_and_a_near_tie_is_not() -> None:
    clear, tie = LOGITS.copy(), LOGITS.copy()
    clear[2, int(LOGITS[2].argmax())] = -5
    order = LOGITS[2].argsort()
    reference = LOGITS.copy()
    reference[2, order[-1]] = reference[2, order[-2]] + 1e-4
    tie[2, order[-1]] = reference[2, order[-2]] - 1e-4

    [flip] = [finding for finding in found(clear, ranking=True) if finding.code == "TRT303"]
    assert flip.evidence["first"][0][0] == 2
    assert flip.evidence["sound"] == 1
    assert codes(tie, reference, ranking=True) == []


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda x: np.roll(x, 1, axis=1), "its classes are shifted by +1"),
        (lambda x: x[:, ::-1], "its classes are in reversed order"),
        (lambda x: x[:, [1, 0, *range(2, 10)]], "its classes changed places (0 holds 1, 1 holds 0)"),
        (lambda x: -x, "its sign is changed"),
        (lambda x: 1.5 * x, "it is the golden's times 1.5"),
    ],
)
def test_a_plain_change_of_the_output_is_called_by_its_name(change: object, said: str) -> None:
    assert said in found(change(LOGITS))[-1].message  # type: ignore[operator]


def test_no_name_is_given_to_noise() -> None:
    assert found(LOGITS + NOISE)[0].evidence["resemblance"] == ""


def test_outputs_that_changed_places_are_named() -> None:
    assert "it is the golden's output 'other'" in found(NOISE, other=NOISE)[0].message


def test_class_ids_that_are_off_by_one_are_named() -> None:
    ids = DRAW.integers(0, 9, 16)

    assert "every value is off by +1" in found(ids + 1, ids)[0].message


def test_the_hop_that_is_over_its_limit_is_to_blame() -> None:
    hops = (Hop("golden", "fp32", "out", 0.2, 1e-4), Hop("fp32", "simulated", "out", 0.001, 0.01))

    [finding] = found(LOGITS + np.float32(0.2) * NOISE, hops=hops)

    assert finding.evidence["hop"] == "golden -> fp32"
    assert "differs in fp32 already" in finding.message
