"""Benchmarks: which tests are timed, and how what was measured reaches pytest-benchmark."""

from __future__ import annotations

import json
import warnings
from typing import TYPE_CHECKING, Any

import pytest

from pytest_trt.errors import SpecError
from pytest_trt.findings.diagnosis import with_found
from pytest_trt.latency.baseline import Identity
from pytest_trt.latency.check import find_latency, open_keeper, vanished
from pytest_trt.latency.options import gate_of, timing_of
from pytest_trt.latency.result import as_info
from pytest_trt.latency.rule import State
from pytest_trt.plugin import settings
from pytest_trt.plugin._items import about, attach, records_of

if TYPE_CHECKING:
    from collections.abc import Generator, Iterator, Mapping, Sequence

    from pytest_trt.backends.backend import Built
    from pytest_trt.case.case import Case
    from pytest_trt.findings.verdict import Verdict
    from pytest_trt.latency.question import Keeper
    from pytest_trt.latency.result import Latency
    from pytest_trt.model.feeds import Arrays

__all__ = [
    "LATE",
    "begin",
    "complaints",
    "finish",
    "forget",
    "is_disabled",
    "keeper_of",
    "prepare",
    "remarks",
    "replayed",
    "tell",
    "time_by_hand",
    "was_timed",
    "with_latency",
]


class ReplayClock:
    """A clock that tells 0 and a sample by turns.

    Attributes:
        __name__: what pytest-benchmark writes as the timer's name: the clock that took the samples.
    """

    def __init__(self) -> None:
        self.__name__ = "not_used"
        self._readings: Iterator[float] = iter(())

    def wind(self, seconds: Sequence[float], name: str) -> None:
        """Have these samples told next; ``name`` is the clock's that took them."""
        self.__name__ = name
        self._readings = (reading for sample in seconds for reading in (0.0, sample))

    def __call__(self) -> float:
        """The next reading in seconds.

        Raises:
            RuntimeError: it was read more often than there are samples.
        """
        for reading in self._readings:
            return reading
        raise RuntimeError("the replayed clock was read more often than pytest-benchmark's pedantic mode reads it")


def replay(benchmark: Any, clock: ReplayClock, seconds: Sequence[float], name: str, info: Mapping[str, Any]) -> bool:
    """Hand samples to a ``benchmark`` fixture whose timer is this clock.

    Args:
        benchmark: the fixture, unused as yet.
        clock: its timer.
        seconds: the samples, plain floats.
        name: of the clock that took them.
        info: for its ``extra_info``, plain as JSON is.

    Returns:
        Whether they were taken: not where benchmarks are disabled, and not by another plugin's ``benchmark``.
    """
    benchmark.extra_info.update(info)
    if getattr(benchmark, "disabled", True) or not seconds:
        benchmark.pedantic(_nothing)
        return False
    clock.wind(seconds, name)
    benchmark.pedantic(_nothing, rounds=len(seconds), iterations=1)
    return True


def _nothing() -> None:
    """What is "run" while the clock tells what was measured."""


LATE = "trt_late"
"""Name of the property of a report that tells anew what was told of an item before."""

SAVED = "trt"
"""Name under which pytest-benchmark keeps a run that was timed, where the user names none."""

_clock = pytest.StashKey[Any]()
_keeper = pytest.StashKey["Keeper"]()
_collected = pytest.StashKey[list[pytest.Item]]()
_filled = pytest.StashKey[Any]()
_found = pytest.StashKey[list[tuple[pytest.Item, "Latency", dict[str, Any]]]]()
_hand = pytest.StashKey[tuple["Latency", dict[str, Any]]]()


def begin(config: pytest.Config) -> None:
    """Before pytest-benchmark looks at its options: refuse where nothing can be timed, and have samples kept.

    Raises:
        UsageError: under xdist, or with --benchmark-skip, where a gate would be green because it timed nothing.
    """
    mode = settings.latency_mode(config)
    if mode is None:
        return
    option = config.option
    if getattr(option, "numprocesses", None) or getattr(option, "dist", "no") != "no" or hasattr(config, "workerinput"):
        raise pytest.UsageError(
            f"--trt-latency={mode} is refused under xdist, whose workers would time each other: drop -n"
            f"{'' if config.getoption('trt_latency') else ', or add -o trt_latency='}."
        )
    if getattr(option, "benchmark_skip", False):
        raise pytest.UsageError(f"--trt-latency={mode} times engines, and --benchmark-skip skips that: drop one.")
    if getattr(option, "trt_build_only", False):
        raise pytest.UsageError(f"--trt-latency={mode} times engines, and --trt-build-only runs none: drop one.")
    _require_sound_words(config)
    if hasattr(option, "benchmark_save_data"):
        option.benchmark_save_data = True
        if not (option.benchmark_save or option.benchmark_autosave):
            option.benchmark_save = SAVED
            config.pluginmanager.register(_Saving(), "trt-saving")


def _require_sound_words(config: pytest.Config) -> None:
    """Words that are known one by one may contradict each other."""
    try:
        timing_of(settings.latency_words(config, "timing"))
        gate_of(settings.latency_words(config, "gate"))
    except SpecError as error:
        raise pytest.UsageError(str(error)) from error


class _Saving:
    """Saving was our word, not the user's: that there is nothing to save is no warning then."""

    @pytest.hookimpl(wrapper=True)
    def pytest_sessionfinish(self) -> Generator[None, Any, Any]:
        """Around pytest-benchmark, which saves here."""
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "Not saving anything, no benchmarks have been run")
            return (yield)


def prepare(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Give each test that is timed a clock of its own, as the timer of its ``benchmark``."""

    config.stash[_collected] = list(items)
    if not config.pluginmanager.hasplugin("benchmark"):
        return
    for item in filter(_is_timed, items):
        fixtures: list[str] = item.fixturenames  # type: ignore[attr-defined]
        if _takes_benchmark(item):
            continue  # a test's own benchmark is its own: the latency is in the record alone
        if "benchmark" not in fixtures:
            fixtures.append("benchmark")
        if getattr(config.option, "codspeed", False):
            continue  # that plugin's own `benchmark` keeps the test selected, and takes no clock
        clock = item.stash.setdefault(_clock, ReplayClock())
        told = item.get_closest_marker("benchmark")
        # only the closest marker counts for pytest-benchmark
        item.add_marker(pytest.mark.benchmark(**{**(told.kwargs if told else {}), "timer": clock}))
        # what is wrong is not timed, and that is no fixture that somebody forgot to use
        item.add_marker(pytest.mark.filterwarnings("ignore:Benchmark fixture was not used at all"))


def _takes_benchmark(item: pytest.Item) -> bool:
    """Whether the test itself asks for pytest-benchmark's fixture."""
    return "benchmark" in getattr(getattr(item, "_fixtureinfo", None), "argnames", ())


def keeper_of(item: pytest.Item) -> Keeper | None:
    """What times this item's engine and judges its latency; None where the run times nothing."""
    mode = settings.latency_mode(item.config)
    if mode is None or "trt_benchmark" in getattr(item, "fixturenames", ()):
        return None
    return _keeper_for(item, mode)


def time_by_hand(item: pytest.Item, case: Case, built: Built, inputs: Arrays) -> Latency:
    """What ``trt_benchmark`` found; kept for the item's record."""
    keeper = _keeper_for(item, settings.latency_mode(item.config) or "record")
    found = find_latency(keeper, case, built, inputs)
    info = _replay(item, found, {})
    item.stash[_hand] = found, info
    _remember(item, found, info)
    return found


def with_latency(item: pytest.Item, verdict: Verdict) -> Verdict:
    """The verdict with what ``trt_benchmark`` found in the same test; its benchmark is told of it."""
    found, _ = item.stash.get(_hand, (None, {}))
    if found is None or verdict.latency is not None:
        return verdict
    tell(item, verdict)
    return with_found(verdict, found, settings.scrutiny(item.config).choice)


def tell(item: pytest.Item, verdict: Verdict) -> None:
    """Put what was judged by hand beside the latency in the history: a wrong engine stays so, whatever comes later."""
    found, info = item.stash.get(_hand, (None, {}))
    if found is None or not info:
        return
    before = info["trt"].get("verdict")
    info.update(as_info(found, _beside(verdict)))
    if before in ("failed", "error"):
        info["trt"]["verdict"] = before


def forget(item: pytest.Item) -> None:
    """Before a test is run, perhaps again: nothing was timed in it yet."""
    if _hand in item.stash:
        del item.stash[_hand]


def was_timed(item: pytest.Item) -> bool:
    """Whether ``trt_benchmark`` found a latency in this test."""
    return _hand in item.stash


def is_disabled(item: pytest.Item) -> bool:
    """Whether benchmarks are disabled, and nothing else asks for a latency."""
    benchmark = getattr(item, "funcargs", {}).get("benchmark")
    return settings.latency_mode(item.config) is None and bool(getattr(benchmark, "disabled", False))


def replayed(item: pytest.Item, verdict: Verdict) -> None:
    """Hand what was measured to pytest-benchmark, if anything was."""
    if verdict.latency is None:
        return
    _remember(item, verdict.latency, _replay(item, verdict.latency, _beside(verdict)))


def finish(session: pytest.Session) -> None:
    """After the last test: fail those that only the whole run shows to be slower."""
    keeper = session.config.stash.get(_keeper, None)
    found = session.config.stash.get(_found, [])
    if keeper is None or keeper.mode != "gate":
        return
    slow = {case for case, compared in keeper.suite.finish().items() if compared.ratio > 1}
    for item, latency, info in found:
        if str(latency.identity) not in slow:
            continue
        if "trt" in info:
            info["trt"]["state"] = "slow"
        if _slow_fails(keeper, session.config):
            _fail_late(item, latency)


def complaints(session: pytest.Session) -> Iterator[str]:
    """Why a run that was to gate latency is not green: it timed nothing, or baselines had no case."""
    config = session.config
    if settings.latency_mode(config) != "gate" or config.option.collectonly:
        return
    asked = config.getoption("trt_latency") or _is_whole(config) or any(map(_is_timed, session.items))
    if asked and not config.stash.get(_found, []):
        yield "--trt-latency=gate asks for a latency, and no case was timed."
    yield from _vanished(config, "fail")


def remarks(session: pytest.Session) -> Iterator[str]:
    """What there is to say of a run that was to gate latency, and fails nothing."""
    if settings.latency_mode(session.config) == "gate" and not session.config.option.collectonly:
        yield from _vanished(session.config, "warn")


def _vanished(config: pytest.Config, action: str) -> Iterator[str]:
    """Baselines that have no case any more, where that is what they do."""
    found = config.stash.get(_found, [])
    if found and _is_whole(config) and config.stash[_keeper].policy.action(State.VANISHED) == action:
        machines = {latency.machine.key for _, latency, _ in found}
        yield from vanished(config.stash[_keeper], machines, settings.precisions_asked(config))


def _slow_fails(keeper: Keeper, config: pytest.Config) -> bool:
    ignored = settings.scrutiny(config).choice.ignore
    return keeper.policy.action(State.SLOW) == "fail" and not (ignored and "TRT601".startswith(ignored))


def _keeper_for(item: pytest.Item, mode: str) -> Keeper:
    """One a run: all cases share the history and the suite that they are judged as."""
    config = item.config
    if _keeper not in config.stash:
        config.stash[_keeper] = open_keeper(
            mode,
            timing_words=settings.latency_words(config, "timing"),
            gate_words=settings.latency_words(config, "gate"),
            folder=settings.baseline_dir(config),
            store=settings.store_folder(config),
            history=_storage(config),
            size=sum(_is_timed(other) for other in item.session.items),
            collected=_identities(config.stash[_collected]),
        )
    return config.stash[_keeper]


def _is_timed(item: pytest.Item) -> bool:
    fixtures = getattr(item, "fixturenames", ())
    if "trt_benchmark" in fixtures:
        return True
    if settings.latency_mode(item.config) is None:
        return False
    return "trt_check" in fixtures or (hasattr(item, "case") and hasattr(item, "fixturenames"))


def _storage(config: pytest.Config) -> str:
    """Where pytest-benchmark keeps its runs, as its option tells it."""
    return str(getattr(config.option, "benchmark_storage", "file://./.benchmarks"))


def _identities(items: list[pytest.Item]) -> frozenset[Identity]:
    """All cases that were collected, at their precisions, on their backends; those deselected later too."""
    found = set()
    for item in items:
        case, precision = about(item)
        if case is not None and not isinstance(case, Exception) and precision:
            found.add(Identity(case.name, precision, settings.backend_for(item.config, case)))
    return frozenset(found)


def _is_whole(config: pytest.Config) -> bool:
    """Whether the whole suite was collected, so that a baseline without a case tells something."""
    option = config.option
    words = ("keyword", "markexpr", "deselect", "lf", "stepwise", "ignore", "ignore_glob")
    chosen = any(getattr(option, word, None) for word in words)
    return not (config.args_source is pytest.Config.ArgsSource.ARGS or chosen or settings.models(config))


def _replay(item: pytest.Item, found: Latency, beside: dict[str, Any]) -> dict[str, Any]:
    """Hand samples to the item's ``benchmark``; returns what was put into its ``extra_info``."""
    benchmark, clock = getattr(item, "funcargs", {}).get("benchmark"), item.stash.get(_clock, None)
    # pytest-benchmark keeps one benchmark a test: the first, of this attempt where a test is run again
    if benchmark is not None and clock is not None and item.stash.get(_filled, None) is not benchmark:
        item.stash[_filled] = benchmark
        seconds: list[float] = found.samples.lap.latency.tolist()
        replay(benchmark, clock, seconds, found.samples.metric.clock, as_info(found, beside))
        told: dict[str, Any] = benchmark.extra_info
        return told
    return {}


def _remember(item: pytest.Item, found: Latency, info: dict[str, Any]) -> None:
    item.config.stash.setdefault(_found, []).append((item, found, info))


def _beside(verdict: Verdict) -> dict[str, Any]:
    """What the history keeps beside the latency: that it was right, by how much, and of which files."""
    worst = verdict.worst
    engine = verdict.provenance.get("engine") or {}
    return {
        "verdict": "passed"
        if verdict.judgements and not any(j.reasons for j in verdict.judgements)
        else verdict.verdict,
        "model_sha256": verdict.provenance.get("model_sha256"),
        "plan_sha256": engine.get("plan_sha256"),
        "rel_rms": worst.error if worst else None,
        "bound": worst.bound if worst else None,
        "accuracy": worst.accuracy.actual if worst and worst.accuracy else None,
    }


def _fail_late(item: pytest.Item, latency: Latency) -> None:
    """Report an error of a test that was over: xdist, JUnit, --lf and the exit status know it like any other."""
    records = records_of(item)
    record = json.loads(records[0]) if records else None
    message = f"{latency.identity} is slower, which the whole run shows: {latency.message}"
    if record:
        record["verdict"], record["latency"]["state"] = "failed", "slow"
        record["latency"].update(fails=True, action="fail", message=message)
    report = pytest.TestReport(
        item.nodeid, item.location, {}, "failed", message, "teardown", user_properties=[(LATE, True)] if record else []
    )
    attach(report, [json.dumps(record)] if record else [])
    item.ihook.pytest_runtest_logreport(report=report)
