from __future__ import annotations

import json
import math
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import pytest
from fakes.saved_runs import FIRST, benchmark, save, save_all, table

from pytest_trt.errors import DataError
from pytest_trt.latency.runs import read_history

if TYPE_CHECKING:
    from pathlib import Path

BENCHMARKED = """
    import pytest

    SAMPLES = [0.001, 0.003, 0.002]

    class Clock:
        def __init__(self):
            self.times = iter([time for sample in SAMPLES for time in (0.0, sample)])

        def __call__(self):
            return next(self.times)

    @pytest.mark.benchmark(timer=Clock())
    def test_net(benchmark):
        benchmark.extra_info["trt"] = {table}
        benchmark.pedantic(lambda: None, rounds=3, iterations=1)

    def test_of_another_kind(benchmark):
        benchmark.pedantic(lambda: None, rounds=3)
"""


def test_runs_that_pytest_benchmark_saved_are_read(pytester: pytest.Pytester) -> None:
    pytester.makepyfile(BENCHMARKED.replace("{table}", repr(table())))
    for _ in range(2):
        assert pytester.runpytest("--benchmark-save=kept", "--benchmark-save-data").ret == 0

    history = read_history(pytester.path / ".benchmarks")

    assert [(one.run, one.p50_s, one.samples) for one in history.entries] == [
        ("0001_kept", 0.002, 3),
        ("0002_kept", 0.002, 3),
    ]
    assert history.entries[0].when < history.entries[1].when
    assert history.complaints == ()


def test_a_file_of_benchmark_json_is_read(pytester: pytest.Pytester) -> None:
    pytester.makepyfile(BENCHMARKED.replace("{table}", repr(table())))
    assert pytester.runpytest("--benchmark-json=run.json").ret == 0

    [entry] = read_history(pytester.path / "run.json").entries

    assert (entry.run, entry.key.case, entry.key.precision, entry.state) == ("run", "net", "int8", "recorded")


def test_reading_a_storage_writes_nothing(tmp_path: Path) -> None:
    save(tmp_path, 1, benchmark(1e-3, table()))
    before = sorted(tmp_path.rglob("*"))
    read_history(f"file://{tmp_path}")
    assert sorted(tmp_path.rglob("*")) == before


def test_runs_are_in_order_of_time_whatever_their_names(tmp_path: Path) -> None:
    save(tmp_path, 2, benchmark(1e-3, table()), when=FIRST)
    save(tmp_path, 1, benchmark(1e-3, table()), when=FIRST + timedelta(days=1))
    assert [one.run for one in read_history(tmp_path).entries] == ["0002_main", "0001_main"]


def test_a_run_that_two_files_tell_counts_once(tmp_path: Path) -> None:
    path = save(tmp_path, 1, benchmark(1e-3, table()))
    (tmp_path / "run.json").write_bytes(path.read_bytes())
    assert len(read_history(tmp_path).entries) == 1


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "it is no JSON, or was cut off"),
        ('{"benchmarks": [', "it is no JSON, or was cut off"),
        ("[" * 100_000, "it is no JSON, or was cut off"),
        ("[1, 2]", "it is no file of pytest-benchmark"),
        ('{"results": []}', "it is no file of pytest-benchmark"),
        ('{"benchmarks": []}', "it does not tell when the run was"),
        ('{"benchmarks": [], "datetime": "yesterday"}', "it does not tell when the run was"),
    ],
)
def test_a_damaged_or_foreign_file_is_told_and_skipped(tmp_path: Path, text: str, said: str) -> None:
    save(tmp_path, 1, benchmark(1e-3, table()))
    (tmp_path / "other.json").write_text(text)

    history = read_history(tmp_path)

    assert len(history.entries) == 1
    assert history.complaints == (f"{tmp_path / 'other.json'}: skipped, {said}.",)


def test_a_file_that_is_no_text_is_told_and_skipped(tmp_path: Path) -> None:
    (tmp_path / "other.json").write_bytes(b"\xff\xfe\x00")
    assert "it is no JSON" in read_history(tmp_path).complaints[0]


@pytest.mark.parametrize(
    ("broken", "said"),
    [
        (benchmark(math.nan, table()), "its median of nan s is no time"),
        (benchmark(0, table()), "its median of 0 s is no time"),
        (benchmark(-1e-3, table()), "its median of -0.001 s is no time"),
        (benchmark(1e-3, table(schema=2)), "its table has schema 2, and this release reads 1"),
        (benchmark(1e-3, table(case=None)), "its table does not tell case"),
        ({"extra_info": {"trt": table()}}, "its median of None s is no time"),
        ({"extra_info": {"trt": "net"}, "fullname": "x"}, "its table has schema None"),
    ],
)
def test_a_benchmark_that_is_not_understood_is_told_and_the_others_are_read(
    tmp_path: Path, broken: Any, said: str
) -> None:
    save(tmp_path, 1, broken, benchmark(1e-3, table("other")))

    history = read_history(tmp_path)

    assert [one.key.case for one in history.entries] == ["other"]
    assert said in history.complaints[0]


def test_benchmarks_of_other_tests_are_passed_over(tmp_path: Path) -> None:
    save(tmp_path, 1, benchmark(1e-3, None), {"extra_info": None}, {})
    assert read_history(tmp_path).entries == ()
    assert read_history(tmp_path).complaints == ()


def test_a_place_that_is_not_there_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="is not there"):
        read_history(tmp_path / "nowhere")


def test_entries_are_chosen_by_case_precision_machine_and_metric(tmp_path: Path) -> None:
    others = [
        table("other"),
        table(precision="fp16"),
        table(machine={"key": "f" * 16}),
        table(metric={**table()["metric"], "graph": False}),
    ]
    save(tmp_path, 1, benchmark(1e-3, table()), *(benchmark(2e-3, other) for other in others))
    history = read_history(tmp_path)

    chosen = history.of(case="net", precision="int8", machine="0123456789abcdef", metric=table()["metric"])

    assert [one.p50_s for one in chosen] == [1e-3]
    assert len(history.of(case="net")) == 4
    assert len(history.series()) == 5


def test_a_metric_is_the_same_in_any_order_of_its_words_and_with_tuples_for_lists(tmp_path: Path) -> None:
    metric = {**table()["metric"], "shapes": {"x": [1, 3]}}
    save(tmp_path, 1, benchmark(1e-3, table(metric=metric)))
    turned = {**dict(reversed(metric.items())), "shapes": {"x": (1, 3)}}
    assert len(read_history(tmp_path).of(metric=turned)) == 1


def test_disturbances_and_environment_are_those_of_the_table(tmp_path: Path) -> None:
    save(tmp_path, 1, benchmark(1e-3, table(telemetry={"disturbances": ["The GPU was throttled."]})))
    [entry] = read_history(tmp_path).entries
    assert entry.disturbances == ("The GPU was throttled.",)
    assert entry.environment == {"TensorRT": "10.3"}


def test_a_time_without_a_zone_is_utc(tmp_path: Path) -> None:
    path = save(tmp_path, 1, benchmark(1e-3, table()))
    document = json.loads(path.read_text())
    path.write_text(json.dumps({**document, "datetime": "2026-01-01T12:00:00.500000"}))
    assert read_history(tmp_path).entries[0].when == FIRST + timedelta(seconds=0.5)


def test_all_of_a_long_history_is_read(tmp_path: Path) -> None:
    save_all(tmp_path, [1e-3] * 120)
    assert len(read_history(tmp_path).of(case="net")) == 120
