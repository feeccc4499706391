# SPDX-License-Identifier: Apache-2.0
"""jtop's source, over what stands in for jetson-stats; and over its client where it is."""

from __future__ import annotations

import copy
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from edge_imprint_runtime.sensors import Recorder, SensorLostError, jetson
from edge_imprint_runtime.sensors.jetson import JtopSource
from tests.standins.jetson import BOARDS, Board, jtop_standin

READINGS = {
    "orin_nx": {
        "cores_online": 2.0,
        "cpu_mhz": (1984.0 + 729.6) / 2,
        "cpu_mhz_min": 729.6,
        "cpu_mhz_max": 1984.0,
        "gpu_percent": 87.3,
        "gpu_mhz": 918.0,
        "gpu_memory_used_bytes": 512.0 * 2**20,
        "emc_mhz": 3199.0,
        "emc_percent": 21.0,
        "temperature_c.cpu": 51.25,
        "temperature_c.gpu": 49.5,
        "temperature_c.tj": 52.0,
        "power_w.VDD_CPU_GPU_CV": 2.65,
        "power_w.VDD_SOC": 1.45,
        "power_w.total": 7.315,
        "fan_percent": 38.0,
        "fan_rpm": 2100.0,
        "jetson_clocks": 1.0,
        "power_mode_id": 0.0,
    },
    "thor": {
        "cores_online": 14.0,
        "gpu_percent": 40.0,
        "gpu_mhz": 1575.0,
        "gpu_power_w": 21.5,
        "temperature_c.nvme_Composite": 40.85,
        "power_w.VDD_GPU": 12.0,
        "power_w.VDD_CPU_SOC_MSS": 9.0,
        "power_w.total": 21.0,
        "power_mode_id": 1.0,
    },
}


@pytest.fixture
def source() -> Iterator[JtopSource]:
    with jtop_standin():
        made = JtopSource()
        yield made
        made.close()


@pytest.mark.parametrize("board", BOARDS)
def test_readings(source: JtopSource, board: str) -> None:
    Board.last.data = BOARDS[board]
    assert source.read() == pytest.approx(READINGS[board])


@pytest.fixture
def client(monkeypatch: pytest.MonkeyPatch) -> Any:
    """jetson-stats' own client, where it is installed."""
    client = pytest.importorskip(
        "jtop.jtop", reason="jetson-stats is for Jetsons; install it to lay its client here"
    )
    # It runs programs for the versions of libraries, and leaves their pipes to the collector.
    monkeypatch.setattr(client.jtop, "_load_jetson_libraries", lambda self: None)
    return client


@pytest.mark.parametrize("board", BOARDS)
def test_the_real_client_gives_the_same(client: Any, board: str) -> None:
    real = client.jtop()
    # What its start() makes of the service's greeting.
    real._jetson_clocks = client.JetsonClocks(None) if "jc" in BOARDS[board] else None
    real._nvpmodel = client.NVPModel(None, {"models": [], "default": {}})

    class Event:
        def is_set(self) -> bool:
            return True

        def clear(self) -> None: ...

    real._sync_event, real._sync_data = Event(), BOARDS[board]
    real._running = True
    real._get_data()
    with jtop_standin():
        source = JtopSource()
    source._jetson = real
    assert source.read() == pytest.approx(READINGS[board])
    assert source.facts()["power_mode"] == BOARDS[board]["nvp"]["model"]["name"]
    real._error = (RuntimeError, RuntimeError("Lost connection with jtop server"), None)
    with pytest.raises(SensorLostError, match=r"^jtop: Lost connection with jtop server$"):
        source.read()


@pytest.mark.parametrize("board", BOARDS)
def test_the_real_service_sums_power_so(board: str) -> None:
    power = pytest.importorskip(
        "jtop.core.power", reason="jetson-stats is for Jetsons; install it to ask its service"
    )
    theirs = copy.deepcopy(BOARDS[board]["power"])
    rails, whole = theirs["rail"], theirs["tot"]
    rails = {name: rail for name, rail in rails.items() if "avg" in rail}
    if "name" in whole:
        rails[whole.pop("name")] = whole
    total, left = power.total_power(rails)
    assert total["power"] == BOARDS[board]["power"]["tot"]["power"]
    assert total.get("name") == BOARDS[board]["power"]["tot"].get("name")
    assert left.keys() <= BOARDS[board]["power"]["rail"].keys()


@pytest.mark.skipif(
    Path("/run/jtop.sock").exists(), reason="jetson-stats' service runs on this machine"
)
@pytest.mark.usefixtures("client")
def test_the_real_client_without_its_service() -> None:
    with pytest.raises(
        SensorLostError,
        match=r"^jtop: The jtop.service is not active. Please run: sudo [^\n]*$",
    ):
        JtopSource()


def test_facts(source: JtopSource) -> None:
    assert source.facts() == {
        "board": "NVIDIA Jetson Orin NX Engineering Reference Developer Kit",
        "module": "NVIDIA Jetson Orin NX (16GB ram)",
        "soc": "tegra234",
        "compute_capability": "8.7",
        "l4t": "36.4.3",
        "jetpack": "6.2",
        "cuda": "12.6.68",
        "cudnn": "9.3.0.75",
        "tensorrt": "10.3.0.30",
        "power_mode": "MAXN",
        "jetson_clocks": "on",
        "gpu_governor": "nvhost_podgov",
    }


@pytest.mark.parametrize(
    ("group", "gone"),
    [
        ("cpu", "cpu_mhz"),
        ("gpu", "gpu_mhz"),
        ("mem", "emc_mhz"),
        ("temperature", "temperature_c.tj"),
        ("power", "power_w.total"),
        ("fan", "fan_percent"),
        ("nvp", "power_mode_id"),
    ],
)
@pytest.mark.parametrize("broken", [{}, None, {"x": None}])
def test_a_group_that_is_missing_costs_itself_only(
    source: JtopSource, group: str, gone: str, broken: Any
) -> None:
    if group == "nvp":
        Board.last.data.pop(group)
    else:
        Board.last.data[group] = broken
    row = source.read()
    assert gone not in row
    assert len(row) > 8


def test_no_clock_where_jtop_filled_one_in(source: JtopSource) -> None:
    Board.last.data["mem"]["EMC"] = {"cur": 1, "val": 0}
    assert "emc_mhz" not in source.read()


def test_a_service_that_is_stopped(source: JtopSource) -> None:
    assert source.read()
    Board.last.error = RuntimeError("Lost connection\nwith jtop server")
    with pytest.raises(SensorLostError) as caught:
        source.read()
    assert str(caught.value) == "jtop: Lost connection with jtop server"


def test_a_thread_that_ended(source: JtopSource) -> None:
    Board.last.running = False
    with pytest.raises(SensorLostError) as caught:
        source.read()
    assert str(caught.value) == "jtop: its thread has ended"


def test_a_service_that_falls_silent(
    source: JtopSource, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = time.monotonic()
    monkeypatch.setattr(jetson.time, "monotonic", lambda: now)
    assert source.read()
    now += 9
    assert source.read()
    Board.last.data["uptime"] += 1
    now += 9
    assert source.read()
    now += 11
    with pytest.raises(SensorLostError) as caught:
        source.read()
    assert str(caught.value) == "jtop: its service sent nothing new for 10 s"


def test_a_service_that_does_not_run() -> None:
    refusal = RuntimeError(
        "The jtop.service is not active. Please run:\nsudo jtop --install-service"
    )
    with jtop_standin(refusal), pytest.raises(SensorLostError) as caught:
        JtopSource()
    assert str(caught.value) == (
        "jtop: The jtop.service is not active. Please run: sudo jtop --install-service"
    )


def test_a_service_that_never_answers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(jetson, "_START_S", 0.05)
    answer = threading.Event()
    with jtop_standin() as board:
        monkeypatch.setattr(board, "start", lambda self: answer.wait(60))
        with pytest.raises(SensorLostError) as caught:
            JtopSource()
    answer.set()
    assert str(caught.value) == "jtop: its service did not answer within 0 s"


def test_without_the_package(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "jtop", None)
    with pytest.raises(SensorLostError) as caught:
        JtopSource()
    assert str(caught.value) == (
        "the package jetson-stats is not installed; run pip install 'edge-imprint[jetson]'"
    )


def test_a_closed_source(source: JtopSource) -> None:
    source.close()
    source.close()
    assert not Board.last.running
    with pytest.raises(SensorLostError) as caught:
        source.read()
    assert str(caught.value) == "jtop was closed"


def test_a_recorder_outlives_the_service(source: JtopSource) -> None:
    with Recorder([source], 0.001) as recorder:
        while not len(recorder.trace().times_s):
            time.sleep(0.001)
        Board.last.error = RuntimeError("Lost connection with jtop server")
        while not recorder.trace().lost:
            time.sleep(0.001)
    trace = recorder.trace()
    assert trace.lost == {"jtop": "jtop: Lost connection with jtop server"}
    assert trace.power_reading() == "power_w.total"
    assert trace.readings["gpu_mhz"][0] == 918.0
    assert trace.readings["gpu_mhz"][-1] != trace.readings["gpu_mhz"][-1]  # NaN
