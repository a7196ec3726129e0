"""What a machine is and what state it is in, by a fake NVML of which every answer may be refused."""

from __future__ import annotations

import json
import os
import sys
from types import SimpleNamespace
from typing import Any

import pytest
from fakes import nvml as fake_nvml
from fakes.tensorrt import install

from pytest_trt.errors import BackendError
from pytest_trt.latency import _machine as cpu
from pytest_trt.latency._machine import Machine, differences, machine_of
from pytest_trt.latency._telemetry import Telemetry, disturbances, telemetry_of


def with_nvml(monkeypatch: pytest.MonkeyPatch, gpu: dict[str, Any] | None = None, **told: Any) -> Any:
    install(monkeypatch, "8.6", gpu)
    made = fake_nvml.module(**told)
    monkeypatch.setitem(sys.modules, "pynvml", made)
    return made


def test_a_gpu_is_known_by_what_makes_it_fast(monkeypatch: pytest.MonkeyPatch) -> None:
    with_nvml(monkeypatch)

    machine = machine_of(0)

    assert machine.hard == {
        "kind": "gpu",
        "gpu": "FAKE GPU",
        "compute_capability": "8.9",
        "multiprocessors": 4,
        "power_limit_w": 700,
        "ecc": True,
        "mig": "off",
        "virtual": "passthrough",
    }
    assert {key: machine.soft[key] for key in ("driver", "cuda_runtime", "max_sm_mhz", "pcie")} == {
        "driver": "580.82.07",
        "cuda_runtime": "13.0",
        "max_sm_mhz": 1980,
        "pcie": "5.0 x16",
    }
    assert {key: machine.record[key] for key in ("uuid", "serial", "persistence", "pci_bus_id")} == {
        "uuid": "GPU-1234",
        "serial": "42",
        "persistence": True,
        "pci_bus_id": "0000:01:00.0",
    }
    assert machine.notes == ()
    json.dumps([machine.hard, machine.soft, machine.record])


def test_the_gpu_is_found_by_its_pci_bus_id_and_not_by_its_number(monkeypatch: pytest.MonkeyPatch) -> None:
    with_nvml(monkeypatch, {"device_count": 2}, bus_id="0000:02:00.0")

    assert machine_of(1).notes == ()
    assert "does not tell of the GPU at 0000:01:00.0 (Not Found)" in machine_of(0).notes[0]


def test_without_nvml_fewer_keys_and_a_note(monkeypatch: pytest.MonkeyPatch) -> None:
    install(monkeypatch, "8.6")
    monkeypatch.setitem(sys.modules, "pynvml", None)

    machine, telemetry = machine_of(0), telemetry_of(0)

    assert set(machine.hard) == {"kind", "gpu", "compute_capability", "multiprocessors"}
    assert 'pip install "pytest-trt[latency]"' in machine.notes[0]
    assert (telemetry.values, telemetry.notes) == ({}, machine.notes)


def test_without_a_driver_nvml_is_done_without(monkeypatch: pytest.MonkeyPatch) -> None:
    with_nvml(monkeypatch, nvmlInit=None)

    assert "Driver Not Loaded" in machine_of(0).notes[0]


@pytest.mark.parametrize("name", [*fake_nvml.ANSWERS, "everything"])
@pytest.mark.parametrize("how", ["refused", "absent"])
def test_whatever_nvml_does_not_answer_is_left_out(name: str, how: str, monkeypatch: pytest.MonkeyPatch) -> None:
    names = tuple(fake_nvml.ANSWERS) if name == "everything" else (name,)
    names = tuple("nvmlDeviceGetFieldValues" if one == "fields" and how == "absent" else one for one in names)
    with_nvml(monkeypatch, **({"absent": names} if how == "absent" else dict.fromkeys(names)))

    machine, telemetry = machine_of(0), telemetry_of(0)

    assert machine.hard["gpu"] == "FAKE GPU"
    assert None not in [*machine.hard.values(), *machine.soft.values(), *telemetry.values.values()]
    assert disturbances(telemetry, telemetry) == ()
    assert name != "everything" or telemetry.values == {}


def test_no_gpu_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    with_nvml(monkeypatch, {"device_count": 0})

    with pytest.raises(BackendError, match="no GPU can be used"):
        machine_of(0)


def test_a_slice_of_a_gpu_is_another_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    with_nvml(monkeypatch, {"name": "NVIDIA H100 80GB HBM3 MIG 1g.10gb"}, nvmlDeviceGetMigMode=[1, 1])

    assert machine_of(0).hard["mig"] == "1g.10gb"


def test_the_key_is_of_what_must_be_the_same_alone() -> None:
    machine = Machine({"gpu": "A", "ecc": True}, {"driver": "1"})

    assert machine.key == Machine({"ecc": True, "gpu": "A"}, {"driver": "2"}).key
    assert machine.key != Machine({"gpu": "B", "ecc": True}).key
    assert len(machine.key) == 16
    assert int(machine.key, 16) >= 0


def test_differences_are_told_by_what_they_mean() -> None:
    a = Machine({"gpu": "A", "power_limit_w": 700}, {"driver": "580.1"})
    b = Machine({"gpu": "B", "power_limit_w": 700, "ecc": True}, {"driver": "580.2"})

    assert differences(a, b) == (
        ["GPU: A, now B", "ECC: not known, now True"],
        ["driver: 580.1, now 580.2"],
    )
    assert differences(a, a) == ([], [])


def test_a_machine_read_from_json_is_compared_as_well() -> None:
    machine = Machine({"gpu": "A"}, {"driver": "1"})
    read = json.loads(json.dumps({"key": machine.key, "hard": machine.hard, "soft": {"driver": "2"}}))

    assert differences(read, machine) == ([], ["driver: 2, now 1"])


def test_the_state_of_a_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    with_nvml(monkeypatch)

    assert telemetry_of(0).values == {
        "reasons": 0,
        "sm_mhz": 1965,
        "memory_mhz": 3201,
        "max_sm_mhz": 1980,
        "temperature_c": 41,
        "power_w": 312.5,
        "pstate": 0,
        "throttled_ns": {
            "power cap": 5_000_000,
            "thermal slowdown": 0,
            "software thermal slowdown": 0,
            "hardware thermal slowdown": 0,
            "power brake": 0,
        },
        "other_processes": 0,
        "free_bytes": 100,
    }


def test_older_names_of_nvml_are_asked_where_the_newer_are_not_there(monkeypatch: pytest.MonkeyPatch) -> None:
    with_nvml(
        monkeypatch,
        absent=("nvmlDeviceGetCurrentClocksEventReasons", "nvmlDeviceGetTemperatureV"),
        nvmlDeviceGetCurrentClocksThrottleReasons=0x4,
        nvmlDeviceGetTemperature={0: 80},
    )

    values = telemetry_of(0).values

    assert (values["reasons"], values["temperature_c"]) == (0x4, 80)


def test_without_counters_nvmls_violations_count(monkeypatch: pytest.MonkeyPatch) -> None:
    power = SimpleNamespace(violationTime=7, referenceTime=0)
    with_nvml(monkeypatch, fields=None, nvmlDeviceGetViolationStatus={0: power})

    assert telemetry_of(0).values["throttled_ns"] == {"power cap": 7}


@pytest.mark.parametrize(("ids", "others"), [([], 0), ([7], 0), ([7, 8], 1), ([7, 8, 9, 9], 2)])
def test_of_the_processes_on_the_gpu_one_is_ours(ids: list[int], others: int, monkeypatch: pytest.MonkeyPatch) -> None:
    with_nvml(monkeypatch, nvmlDeviceGetComputeRunningProcesses=[SimpleNamespace(pid=number) for number in ids])

    found = telemetry_of(0)

    assert found.values["other_processes"] == others
    assert disturbances(found, found) == ((f"{others} other process(es) use the GPU",) if others else ())


def told(**values: Any) -> Telemetry:
    return Telemetry({"sm_mhz": 1965, "max_sm_mhz": 1980, "reasons": 0, **values})


def test_a_quiet_gpu_disturbs_nothing() -> None:
    assert disturbances(told(sm_mhz=345, reasons=0x1), told()) == ()


def test_a_throttle_counter_that_moved_is_told() -> None:
    before, after = ({"power cap": 5_000_000, "thermal slowdown": 3}, {"power cap": 17_500_000, "thermal slowdown": 3})

    assert disturbances(told(throttled_ns=before), told(throttled_ns=after)) == (
        "the GPU was throttled for 12.5 ms (power cap)",
    )


@pytest.mark.parametrize(
    ("bit", "word"),
    [
        (0x4, "software power cap"),
        (0x8, "hardware slowdown"),
        (0x20, "software thermal slowdown"),
        (0x40, "hardware thermal slowdown"),
        (0x80, "hardware power brake"),
    ],
)
def test_a_bad_reason_is_told_and_no_other(bit: int, word: str) -> None:
    held = (f"the GPU says that its clocks are held down by {word}",)

    assert disturbances(told(reasons=bit), told()) == held
    assert disturbances(told(), told(reasons=bit | 0x113)) == held
    assert disturbances(told(reasons=0x113), told(reasons=0x113)) == ()


def test_a_slow_clock_is_told_unless_the_gpu_is_idle_or_slow_on_purpose() -> None:
    assert disturbances(told(), told(sm_mhz=1425)) == ("the GPU's multiprocessors ran at 1425 MHz, of 1980 expected",)
    assert disturbances(told(), told(sm_mhz=1425, reasons=0x1)) == ()
    assert disturbances(told(), told(sm_mhz=1425), expected_mhz=1410) == ()


def test_a_processor_is_known_by_its_model_and_by_what_may_be_used(monkeypatch: pytest.MonkeyPatch) -> None:
    machine = machine_of(None)

    assert machine.hard["kind"] == "cpu"
    assert machine.hard["processor"]
    assert machine.hard["usable_cpus"] == len(cpu.usable_cpus())
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {0}, raising=False)
    assert machine_of(None).hard["usable_cpus"] == 1


@pytest.fixture
def files(tmp_path: Any, monkeypatch: pytest.MonkeyPatch) -> Any:
    for name, folder in (("_PROC", "proc"), ("_CPUS", "cpus"), ("_CGROUP", "cgroup")):
        (tmp_path / folder).mkdir()
        monkeypatch.setattr(cpu, name, tmp_path / folder)
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {0, 1}, raising=False)
    monkeypatch.setattr(os, "cpu_count", lambda: 8)
    return tmp_path


def test_governor_and_quota_are_part_of_a_processor(files: Any) -> None:
    (files / "proc" / "cpuinfo").write_text("processor : 0\nmodel name\t: Fast 9000\ncpu MHz\t: 2400.5\n")
    (files / "cgroup" / "cpu.max").write_text("150000 100000\n")
    governor = files / "cpus" / "cpu0" / "cpufreq"
    governor.mkdir(parents=True)
    (governor / "scaling_governor").write_text("powersave\n")

    assert cpu.processor() == {
        "processor": "Fast 9000",
        "cpus": 8,
        "usable_cpus": 2,
        "governor": "powersave",
        "cpu_quota": 1.5,
    }
    assert cpu.processor_load()["mhz"] == 2400.5
    (governor / "scaling_cur_freq").write_text("3100000\n")
    assert cpu.processor_load()["mhz"] == 3100


def test_a_processor_that_tells_nothing_is_known_by_its_count(files: Any) -> None:
    assert {key: cpu.processor()[key] for key in ("cpus", "usable_cpus")} == {"cpus": 8, "usable_cpus": 2}
    assert not {"busy_s", "throttled_s", "mhz"} & set(cpu.processor_load())
    assert disturbances(telemetry_of(None), telemetry_of(None)) == ()


def test_only_the_usable_processors_count_as_busy(files: Any) -> None:
    rows = ["cpu  9 9 9 9 9 9 9 9 0 0", "cpu0 100 1 2 900 50 3 4 5 0 0", "cpu1 10 0 0 0 0 0 0 0 0 0"]
    (files / "proc" / "stat").write_text("\n".join([*rows, "cpu2 7777 0 0 0 0 0 0 0 0 0"]))

    assert cpu.processor_load()["busy_s"] == pytest.approx((100 + 1 + 2 + 3 + 4 + 5 + 10) / os.sysconf("SC_CLK_TCK"))


def test_a_quota_that_held_the_process_up_is_told(files: Any) -> None:
    (files / "cgroup" / "cpu.stat").write_text("usage_usec 5\nthrottled_usec 1000000\n")
    before = telemetry_of(None)
    (files / "cgroup" / "cpu.stat").write_text("usage_usec 9\nthrottled_usec 1250000\n")

    assert disturbances(before, telemetry_of(None)) == ("the container's CPU quota held the process up for 250 ms",)


def test_others_on_the_processor_are_told(files: Any) -> None:
    def at(clock: float, busy: float, own: float) -> Telemetry:
        return Telemetry({"clock_s": clock, "busy_s": busy, "own_s": own})

    assert disturbances(at(0, 0, 0), at(10, 16, 8)) == ("others took 40% of the CPUs",)
    assert disturbances(at(0, 0, 0), at(10, 18, 16)) == ()
    assert disturbances(at(0, 0, 0), at(0, 0, 0)) == ()
