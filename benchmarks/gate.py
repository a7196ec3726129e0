"""The latency gate on simulated noise: how often it alarms for nothing, and how often it finds +5 %.

    python benchmarks/gate.py --results FILE.json [--trials 2000] [--seed 0]

No engine and no GPU: times are drawn. An iteration is log-normal (sigma), 1 % of them are 1.3 to 3 times as long; a
run has a factor of its own (tau), blocks of one session drift by AR(0.9) of the same tau, and the two engines of one
session differ by 0.3 % (a standard deviation) for no reason. What judges is pytest_trt.latency itself, and beside it
are the rules of pytest-benchmark's ``--benchmark-compare-fail`` on the same times.
``--table FILE.json`` prints the tables of earlier results.
"""

from __future__ import annotations

import argparse
import json
import math
import platform
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from pytest_trt.latency._decision import Suite, decide
from pytest_trt.latency._intervals import against_history, paired, pairs_needed, suspect
from pytest_trt.latency.rule import Rule, State
from pytest_trt.latency.runs import changes

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from pytest_trt.latency.rule import Compared

SLOWER = 0.05
OUTLIERS = 0.01
ASYMMETRY = 0.003
DRIFT = 0.9
ITERATIONS = 40  # of a block
SAMPLES = 200  # of a run
CASES = 50
EARLIER = 20  # runs of a history
FIRST, MOST = 10, 40  # pairs of blocks: measured first, and at the most
ALONE, AMONG = Rule(), Rule(cases=CASES)
RULES: dict[str, Callable[[Any], Any]] = {"mean:5%": np.mean, "min:5%": np.min, "median:5%": np.median}


@dataclass(frozen=True)
class Noise:
    """Of iterations, of runs and blocks, and the share of blocks or earlier runs that are disturbed."""

    sigma: float
    tau: float
    disturbed: float = 0.0

    @property
    def name(self) -> str:
        """As a row of a table begins."""
        return f"{100 * self.sigma:g} %, {100 * self.tau:g} %" + (", disturbed" if self.disturbed else "")


ITERATING = [Noise(sigma, tau) for sigma in (0.03, 0.05, 0.10) for tau in (0.01, 0.02, 0.03)]
DISTURBED = [Noise(0.05, 0.02, 0.05), Noise(0.10, 0.03, 0.05)]
DRIFTING = [Noise(sigma, tau) for sigma in (0.03, 0.05, 0.10) for tau in (0.005, 0.01, 0.02)] + [
    Noise(0.05, 0.01, 0.05)
]
STEPPING = [Noise(0.05, 0.005), Noise(0.05, 0.01), Noise(0.05, 0.02), Noise(0.05, 0.01, 0.05)]


def iterations(random: np.random.Generator, shape: tuple[int, ...], sigma: float) -> np.ndarray:
    """Logarithms of iterations, float32."""
    drawn = sigma * random.standard_normal(shape, dtype=np.float32)
    late = random.random(shape, dtype=np.float32) < OUTLIERS
    drawn[late] += np.log(random.uniform(1.3, 3, size=int(late.sum()))).astype(np.float32)
    return drawn


def sessions(random: np.random.Generator, noise: Noise, trials: int, pairs: int) -> np.ndarray:
    """Logarithms of two engines' iterations, the blocks in the order ABBA: [2, trials, pairs, iterations]."""
    level = np.empty((trials, 2 * pairs))
    level[:, 0] = random.normal(size=trials)
    for block in range(1, 2 * pairs):
        level[:, block] = DRIFT * level[:, block - 1] + math.sqrt(1 - DRIFT**2) * random.normal(size=trials)
    level *= noise.tau
    level += (random.random(level.shape) < noise.disturbed) * np.log(random.uniform(1.1, 2, size=level.shape))
    blocks = iterations(random, (trials, 2 * pairs, ITERATIONS), noise.sigma) + level[..., None].astype(np.float32)
    first, second = blocks[:, 0::2], blocks[:, 1::2]
    forward = (np.arange(pairs) % 2 == 0)[:, None]
    asymmetry = ASYMMETRY * random.normal(size=(trials, 1, 1)).astype(np.float32)
    return np.stack([np.where(forward, first, second), np.where(forward, second, first) + asymmetry])


def runs(random: np.random.Generator, noise: Noise, trials: int, count: int) -> np.ndarray:
    """Logarithms of the iterations of runs: [trials, count, samples].

    The last three are the run that is judged and its second measurements, in another process and in the same one, which
    shares its drift; none of these is disturbed.
    """
    level = noise.tau * random.normal(size=(trials, count))
    bad = random.random((trials, count - 3)) < noise.disturbed
    level[:, :-3] += bad * np.log(random.uniform(1.04, 1.12, size=bad.shape))
    level[:, -1] = level[:, -3]
    return iterations(random, (trials, count, SAMPLES), noise.sigma) + level[..., None].astype(np.float32)


def slow(compared: list[Compared], rule: Rule) -> float:
    """SLOW in percent, each a case that nothing else of its suite supports."""
    states = [decide(one, rule, rejected=Suite(rule).add("case", one))[0] for one in compared]
    return round(100 * sum(state is State.SLOW for state in states) / len(states), 2)


def fixed(logs: np.ndarray, candidate: np.ndarray, effect: float) -> dict[str, float]:
    """What pytest-benchmark's rules fail, in percent, of samples along the last axis."""
    before, behind = np.exp(logs), np.exp(candidate) * (1 + effect)
    return {
        name: round(float(100 * np.mean(of(behind, axis=-1) > 1.05 * of(before, axis=-1))), 2)
        for name, of in RULES.items()
    }


def grow(baseline: np.ndarray, candidate: np.ndarray, rule: Rule) -> tuple[Compared, int]:
    """Ten pairs, and as many more as their noise asks for, of those that are there."""
    first = paired(baseline[:FIRST], candidate[:FIRST], rule)
    pairs = min(max(pairs_needed(first, rule) or MOST, FIRST), MOST)
    return (first if pairs == FIRST else paired(baseline[:pairs], candidate[:pairs], rule)), pairs


def interleaved(noise: Noise, trials: int, seed: int) -> dict[str, Any]:
    """False alarms and power of designs of 10 and 20 pairs, and of one that grows."""
    random = np.random.default_rng([seed, 1, *np.float64([noise.sigma, noise.tau, noise.disturbed]).view(np.uint32)])
    row: dict[str, Any] = {"noise": noise.name}
    for what, effect in (("false", 0.0), ("power", SLOWER)):
        logs = sessions(random, noise, trials, MOST)
        baseline, candidate = np.exp(np.median(logs, axis=-1).astype(np.float64))
        candidate = candidate * (1 + effect)
        sides = list(zip(baseline, candidate, strict=True))
        for pairs in (10, 20):
            compared = [paired(a[:pairs], b[:pairs], ALONE) for a, b in sides]
            row[f"{what} {pairs}"], row[f"{what} {pairs} of {CASES}"] = slow(compared, ALONE), slow(compared, AMONG)
        for rule, name in ((ALONE, "growing"), (AMONG, f"growing of {CASES}")):
            grown = [grow(a, b, rule) for a, b in sides]
            row[f"{what} {name}"] = slow([compared for compared, _ in grown], rule)
            row[f"{what} {name} pairs"] = round(float(np.mean([pairs for _, pairs in grown])), 1)
        pooled = logs[:, :, :20].reshape(2, trials, -1)
        row[f"{what} pytest-benchmark"] = fixed(pooled[0], pooled[1], effect)
    return row


def suites(compared: Iterator[tuple[Compared, Compared]], count: int) -> dict[str, float]:
    """Suites of fifty with none slow that alarm, and the share of +5 % that is found where one of them is slow."""
    alarms, fast, found, others = 0, 0, 0, 0
    for _ in range(count):
        cases = [next(compared) for _ in range(CASES)]
        states = judged([same for same, _ in cases])
        alarms, fast = alarms + (State.SLOW in states), fast + (State.FAST in states)
        states = judged([cases[0][1], *(same for same, _ in cases[1:])])
        found, others = found + (states[0] is State.SLOW), others + (State.SLOW in states[1:])
    names = ("false slow", "false fast", "found", "false beside it")
    return {name: round(100 * n / count, 2) for name, n in zip(names, (alarms, fast, found, others), strict=True)}


def judged(compared: list[Compared]) -> list[State]:
    """States of a suite's cases, in the order they came; those that only its end rejects included."""
    suite = Suite(AMONG)
    states = [decide(one, AMONG, rejected=suite.add(str(case), one))[0] for case, one in enumerate(compared)]
    for case, one in suite.finish().items():
        states[int(case)] = decide(one, AMONG, rejected=True)[0]
    return states


def suites_interleaved(noise: Noise, count: int, seed: int) -> dict[str, Any]:
    """Of 20 pairs of blocks a case."""
    random = np.random.default_rng([seed, 2, *np.float64([noise.sigma, noise.tau, noise.disturbed]).view(np.uint32)])

    def cases() -> Iterator[tuple[Compared, Compared]]:
        while True:
            baseline, candidate = np.exp(np.median(sessions(random, noise, 500, 20), axis=-1).astype(np.float64))
            for a, b in zip(baseline, candidate, strict=True):
                yield paired(a, b, AMONG), paired(a, b * (1 + SLOWER), AMONG)

    return {"noise": noise.name, "method": "interleaved, 20 pairs", **suites(cases(), count)}


def suites_history(noise: Noise, count: int, seed: int, *, shared: bool, own: bool) -> dict[str, Any]:
    """Of a history of 20 runs, a suspect measured again.

    Args:
        noise: of iterations and runs.
        count: of suites.
        seed: of all that is drawn.
        shared: whether all cases of a run drift together.
        own: whether a second measurement has a process of its own.
    """
    random = np.random.default_rng([seed, 3, shared, own, *np.float64([noise.sigma, noise.tau]).view(np.uint32)])

    def cases() -> Iterator[tuple[Compared, Compared]]:
        while True:
            drift = noise.tau * random.normal(size=(1 if shared else CASES, EARLIER + 3))
            drift[:, -1] = drift[:, -3]
            logs = np.median(runs(random, Noise(noise.sigma, 0.0), CASES, EARLIER + 3), axis=-1).astype(np.float64)
            for values in np.exp(logs + drift):
                yield confirmed(values, 0.0, AMONG, own=own), confirmed(values, SLOWER, AMONG, own=own)

    again = "another process" if own else "the same process"
    method = f"history, again in {again}" + (", cases drift together" if shared else "")
    return {"noise": noise.name, "method": method, **suites(cases(), count)}


def confirmed(values: np.ndarray, effect: float, rule: Rule, *, own: bool) -> Compared:
    """A run beside those before it, measured again where it is suspect."""
    first, elsewhere, here = values[-3:] * (1 + effect)
    compared = against_history(first, values[:-3], rule)
    if not suspect(compared):
        return compared
    return against_history(first, values[:-3], rule, again=elsewhere if own else here, own_process=own)


def history(noise: Noise, trials: int, seed: int) -> dict[str, Any]:
    """False alarms and power of a history of 20 runs, alone and with a second measurement; and of a short one."""
    random = np.random.default_rng([seed, 4, *np.float64([noise.sigma, noise.tau, noise.disturbed]).view(np.uint32)])
    logs = runs(random, noise, trials, EARLIER + 3)
    values = np.exp(np.median(logs, axis=-1).astype(np.float64))
    row: dict[str, Any] = {"noise": noise.name}
    for what, effect in (("false", 0.0), ("power", SLOWER)):
        for earlier in (EARLIER, 5, 1):
            once = [against_history(v[-3] * (1 + effect), v[EARLIER - earlier : -3], ALONE) for v in values]
            row[f"{what} {earlier} runs"] = slow(once, ALONE)
        for own, name in ((False, "again here"), (True, "again elsewhere")):
            twice = [confirmed(v, effect, AMONG, own=own) for v in values]
            row[f"{what} {name}"], row[f"{what} {name} of {CASES}"] = slow(twice, ALONE), slow(twice, AMONG)
        row[f"{what} pytest-benchmark"] = fixed(logs[:, -4], logs[:, -3], effect)
    return row


def states(compared: list[tuple[Compared, Compared]], rule: Rule) -> dict[str, float]:
    """What is said of cases that did not change, and of those 5 % slower, in percent; each alone in its suite."""
    row = {}
    for side, what in ((0, "unchanged"), (1, "slower")):
        found = [decide(one[side], rule, rejected=Suite(rule).add("case", one[side]))[0] for one in compared]
        for state in (State.SLOW, State.FAST, State.SAME, State.AMBIGUOUS):
            row[f"{what} {state.value}"] = round(100 * found.count(state) / len(found), 2)
    return row


def states_interleaved(noise: Noise, trials: int, seed: int, rule: Rule) -> dict[str, Any]:
    """Of ten pairs that grow."""
    random = np.random.default_rng([seed, 6, rule.cases, *np.float64([noise.sigma, noise.tau]).view(np.uint32)])
    blocks = np.exp(np.median(sessions(random, noise, trials, MOST), axis=-1).astype(np.float64))
    found = [(grow(a, b, rule)[0], grow(a, b * (1 + SLOWER), rule)[0]) for a, b in zip(*blocks, strict=True)]
    return {"noise": noise.name, "method": "growing", "cases": rule.cases, **states(found, rule)}


def states_history(noise: Noise, trials: int, seed: int, rule: Rule) -> dict[str, Any]:
    """Of 20 runs, a suspect measured again in the same process."""
    random = np.random.default_rng([seed, 7, rule.cases, *np.float64([noise.sigma, noise.tau]).view(np.uint32)])
    values = np.exp(np.median(runs(random, noise, trials, EARLIER + 3), axis=-1).astype(np.float64))
    found = [(confirmed(v, 0.0, rule, own=False), confirmed(v, SLOWER, rule, own=False)) for v in values]
    return {"noise": noise.name, "method": "history", "cases": rule.cases, **states(found, rule)}


def all_states(trials: int, seed: int) -> list[dict[str, Any]]:
    """Of a case alone and of one among fifty."""
    quiet, hardest = Noise(0.05, 0.02), Noise(0.10, 0.03)
    rows = [states_interleaved(noise, trials, seed, rule) for noise in (quiet, hardest) for rule in (ALONE, AMONG)]
    drifts = [Noise(0.05, tau) for tau in (0.005, 0.01, 0.02)]
    return rows + [states_history(noise, trials, seed, rule) for noise in drifts for rule in (ALONE, AMONG)]


def stepping(noise: Noise, trials: int, seed: int, walk: float = 0.0) -> dict[str, Any]:
    """Histories of 30 runs that are said to change although they do not, and steps of +5 % that are found."""
    random = np.random.default_rng(
        [seed, 5, *np.float64([noise.sigma, noise.tau, noise.disturbed, walk]).view(np.uint32)]
    )
    values = np.median(runs(random, noise, trials, 33)[:, :30], axis=-1).astype(np.float64)
    values += np.cumsum(walk * random.normal(size=values.shape), axis=1)
    row: dict[str, Any] = {"noise": noise.name + (f", walk {100 * walk:g} % a run" if walk else "")}
    row["false"] = round(100 * sum(bool(changes(np.exp(v))) for v in values) / trials, 2)
    for behind in (3, 5, 10):
        step = math.log1p(SLOWER) * (np.arange(30) >= 30 - behind)
        found = [any(abs(one.index - (30 - behind)) <= 1 for one in changes(np.exp(v + step))) for v in values]
        row[f"found, {behind} runs behind it"] = round(100 * sum(found) / trials, 2)
    return row


def measure(trials: int, seed: int) -> dict[str, Any]:
    """All of it."""
    count = max(trials // 5, 10)
    return {
        "states": all_states(trials, seed),
        "interleaved": [interleaved(noise, trials, seed) for noise in ITERATING + DISTURBED],
        "suites": [
            *(suites_interleaved(noise, count, seed) for noise in (Noise(0.05, 0.02), Noise(0.10, 0.03))),
            *(suites_history(Noise(0.05, 0.01), count, seed, shared=False, own=own) for own in (False, True)),
            suites_history(Noise(0.05, 0.01), count, seed, shared=True, own=False),
        ],
        "history": [history(noise, trials, seed) for noise in DRIFTING],
        "changes": [
            *(stepping(noise, trials // 2, seed) for noise in STEPPING),
            stepping(Noise(0.05, 0.01), trials // 2, seed, walk=0.003),
        ],
    }


def bars(document: dict[str, Any]) -> list[tuple[str, float, float, bool]]:
    """What was promised: bar, limit, the worst that was measured, and whether it is met."""
    quiet = [row for row in document["interleaved"] if "disturbed" not in row["noise"]]
    at_one = [row for row in document["history"] if row["noise"] in ("3 %, 1 %", "5 %, 1 %")]
    suite = document["suites"]
    most = [
        ("false alarms a case, interleaved", 1.0, max(row["false 20"] for row in quiet)),
        ("false alarms a suite of 50", 5.0, max(row["false slow"] for row in suite)),
        ("false alarms a case, history at 1 % drift", 2.0, max(row["false 20 runs"] for row in at_one)),
    ]
    least = [
        ("power at +5 %, interleaved, a case alone", 90.0, min(row["power 20"] for row in quiet)),
        ("power at +5 %, interleaved, one of 50", 90.0, min(row["found"] for row in suite if "pairs" in row["method"])),
        ("power at +5 %, history at 1 % drift", 90.0, min(row["power 20 runs"] for row in at_one)),
    ]
    return [(*bar, bar[2] <= bar[1]) for bar in most] + [(*bar, bar[2] >= bar[1]) for bar in least]


def tables(document: dict[str, Any]) -> str:
    """As Markdown."""
    return "\n\n".join(
        _markdown(rows)
        for rows in (
            _bars(document),
            _blocks(document),
            _suites(document),
            _runs(document),
            _told(document),
            _steps(document),
        )
    )


def _bars(document: dict[str, Any]) -> list[list[str]]:
    rows = [["simulated", "bar", "measured", ""]]
    for name, limit, value, met in document["bars"]:
        rows.append(
            [
                name,
                f"{'at most' if name.startswith('false') else 'at least'} {limit:g} %",
                f"{value:g} %",
                "met" if met else "missed",
            ]
        )
    return rows


def _pair(row: dict[str, Any], name: str) -> str:
    return f"{row[f'false {name}']:g} / {row[f'power {name}']:g}"


def _fixed(row: dict[str, Any]) -> list[str]:
    return [f"{row['false pytest-benchmark'][name]:g} / {row['power pytest-benchmark'][name]:g}" for name in RULES]


def _blocks(document: dict[str, Any]) -> list[list[str]]:
    rows = [
        [
            "sigma, tau",
            "10 pairs",
            "20 pairs",
            "20 pairs, one of 50",
            "growing",
            "pairs",
            "growing, one of 50",
            "pairs",
            *RULES,
        ]
    ]
    for row in document["interleaved"]:
        growing, among = "growing", f"growing of {CASES}"
        own = [_pair(row, "10"), _pair(row, "20"), _pair(row, f"20 of {CASES}")]
        own += [
            _pair(row, growing),
            f"{row[f'false {growing} pairs']:g}",
            _pair(row, among),
            f"{row[f'false {among} pairs']:g}",
        ]
        rows.append([row["noise"], *own, *_fixed(row)])
    return rows


def _suites(document: dict[str, Any]) -> list[list[str]]:
    names = ["false slow", "false fast", "found", "false beside it"]
    rows = [["50 cases", "sigma, tau", *names]]
    return rows + [[row["method"], row["noise"], *(f"{row[name]:g}" for name in names)] for row in document["suites"]]


def _runs(document: dict[str, Any]) -> list[list[str]]:
    names = ["20 runs", "again here", "again elsewhere", f"again here of {CASES}", f"again elsewhere of {CASES}"]
    titles = ["20 runs", "again, same process", "again, another process", "same process, one of 50"]
    rows = [["sigma, tau", *titles, "another process, one of 50", "5 runs", "1 run", *RULES]]
    for row in document["history"]:
        rows.append([row["noise"], *(_pair(row, name) for name in [*names, "5 runs", "1 runs"]), *_fixed(row)])
    return rows


def _told(document: dict[str, Any]) -> list[list[str]]:
    kinds = [f"{what} {state}" for what in ("unchanged", "slower") for state in ("slow", "fast", "same", "ambiguous")]
    titles = [f"{kind.split()[0].replace('slower', '+5 %')}: {kind.split()[1].upper()}" for kind in kinds]
    rows = [["cases", "sigma, tau", *titles]]
    for row in document["states"]:
        rows.append([f"{row['method']}, {row['cases']}", row["noise"], *(f"{row[kind]:g}" for kind in kinds)])
    return rows


def _steps(document: dict[str, Any]) -> list[list[str]]:
    names = ["false", *(f"found, {behind} runs behind it" for behind in (3, 5, 10))]
    rows = [["30 runs: sigma, tau", *names]]
    return rows + [[row["noise"], *(f"{row[name]:g}" for name in names)] for row in document["changes"]]


def _markdown(rows: list[list[str]]) -> str:
    return "\n".join(f"| {' | '.join(row)} |" for row in (rows[0], ["---"] * len(rows[0]), *rows[1:]))


def main() -> None:
    """Simulate, write the results, print the tables; exit code 1 if a bar is missed."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--results", type=Path)
    parser.add_argument("--trials", type=int, default=2000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--table", type=Path)
    parser.add_argument("--states", type=Path, help="results whose states are simulated anew, and all else is left")
    words = parser.parse_args()
    if words.table:
        print(tables(json.loads(words.table.read_text())))
        return
    if words.states:
        document = {**json.loads(words.states.read_text()), "states": all_states(words.trials, words.seed)}
        words.states.write_text(json.dumps(document, indent=1) + "\n")
        return
    begun = time.perf_counter()
    document = {"simulated": True, "trials": words.trials, "seed": words.seed, **measure(words.trials, words.seed)}
    document["bars"] = bars(document)
    document["environment"] = {"python": platform.python_version(), "numpy": np.__version__}
    document["seconds"] = round(time.perf_counter() - begun, 1)
    if words.results:
        words.results.write_text(json.dumps(document, indent=1) + "\n")
    print(tables(document))
    sys.exit(0 if all(met for *_, met in document["bars"]) else 1)


if __name__ == "__main__":
    main()
