# SPDX-License-Identifier: Apache-2.0
"""A Jetson: its clocks, rails and power mode, through jetson-stats (`jtop`).

The forms read here are those of jetson-stats 4.2 to 7.2. Its service reads the board and
sends what it found once a second; a reading is a look at what came last.
"""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Callable
from typing import Any

from edge_imprint_runtime.sensors.source import Facts, SensorLostError

__all__ = ["JtopSource"]

# jtop's own default. Its service runs nvpmodel at each interval, for as long as someone
# listens: asked more often it would be a load of its own.
_INTERVAL_S = 1.0
# jtop waits for its service without a limit.
_START_S = 10.0
_SILENT_S = 10.0
_OFFLINE_C = -200.0
# Above this a clock is in kHz, below in MHz: on Thor jtop hands on NVML's MHz.
_KHZ = 10_000


class JtopSource:
    """jtop's readings of the board.

    Readings: ``gpu_percent``, ``gpu_mhz``, ``emc_mhz``, ``emc_percent``, ``cpu_mhz``,
    ``cpu_mhz_min``, ``cpu_mhz_max``, ``cores_online``, ``gpu_memory_used_bytes`` (of the
    memory that GPU and CPU share), ``temperature_c.ZONE``, ``power_w.RAIL``,
    ``power_w.total`` (as jtop counts it: the board's input where that is measured, else the
    sum of the rails), ``fan_percent``, ``fan_rpm``, ``jetson_clocks`` (0 or 1) and
    ``power_mode_id``.

    Raises:
        SensorLostError: jetson-stats is not installed, its service does not run, or does not
            answer.
    """

    name = "jtop"

    def __init__(self) -> None:
        try:
            from jtop import jtop
        except ImportError:
            raise SensorLostError(
                "the package jetson-stats is not installed; "
                "run pip install 'edge-imprint[jetson]'"
            ) from None
        self._uptime: object = None
        self._news_s = time.monotonic()
        self._jetson: Any = _within(_START_S, lambda: _started(jtop(interval=_INTERVAL_S)))

    def read(self) -> dict[str, float]:
        """Look at what the service sent last.

        Raises:
            SensorLostError: The connection to the service broke, or nothing new came for ten
                seconds.
        """
        self._still_there()
        row: dict[str, float] = {}
        for take in (
            _cpu,
            _gpu,
            _memory,
            _temperatures,
            _power,
            _fan,
            _settings,
        ):
            try:
                row |= take(self._jetson)
            except Exception:  # one board has no fan, another no rails: it costs those only
                continue
        return {name: value for name, value in row.items() if math.isfinite(value)}

    def facts(self) -> Facts:
        """Return board, module, JetPack, libraries, and the power mode by its name."""
        jetson = self._jetson
        facts: Facts = {}
        try:
            board = jetson.board
        except Exception:
            board = {}
        for group, keys in _BOARD.items():
            found = board.get(group) or {}
            for key, theirs in keys.items():
                if found.get(theirs):
                    facts[key] = str(found[theirs])
        if jetson.nvpmodel is not None:
            facts["power_mode"] = str(jetson.nvpmodel.name)
        if jetson.jetson_clocks is not None:
            facts["jetson_clocks"] = "on" if jetson.jetson_clocks else "off"
        for gpu in jetson.gpu.values():
            governor = (gpu.get("freq") or {}).get("governor")
            if governor:
                facts["gpu_governor"] = str(governor)
        return facts

    def close(self) -> None:
        """Leave the service."""
        jetson, self._jetson = self._jetson, None
        if jetson is not None:
            try:
                jetson.close()
            except Exception:  # it may be gone already
                return

    def _still_there(self) -> None:
        if self._jetson is None:
            raise SensorLostError("jtop was closed")
        try:
            alive, uptime = self._jetson.ok(spin=True), self._jetson.uptime
        except Exception as error:  # its thread's, as that thread died of it
            raise SensorLostError(f"jtop: {_one_line(error)}") from None
        if not alive:
            raise SensorLostError("jtop: its thread has ended")
        now_s = time.monotonic()
        if uptime != self._uptime:
            self._uptime, self._news_s = uptime, now_s
        elif now_s - self._news_s > _SILENT_S:
            raise SensorLostError(f"jtop: its service sent nothing new for {_SILENT_S:.0f} s")


_BOARD = {
    "hardware": {
        "board": "Model",
        "module": "Module",
        "soc": "SoC",
        "compute_capability": "CUDA Arch BIN",
        "l4t": "L4T",
        "jetpack": "Jetpack",
    },
    "libraries": {"cuda": "CUDA", "cudnn": "cuDNN", "tensorrt": "TensorRT", "vpi": "VPI"},
}


def _started(jetson: Any) -> Any:
    try:
        jetson.start()
    except Exception as error:  # JtopException, and what its socket raises
        raise SensorLostError(f"jtop: {_one_line(error)}") from None
    return jetson


def _within(limit_s: float, make: Callable[[], Any]) -> Any:
    """Make something on a thread that is left behind when it takes too long."""
    made: list[Any] = []
    failed: list[SensorLostError] = []

    def run() -> None:
        try:
            made.append(make())
        except SensorLostError as error:
            failed.append(error)
        except Exception as error:
            failed.append(SensorLostError(f"jtop: {_one_line(error)}"))

    thread = threading.Thread(target=run, name="jtop opening", daemon=True)
    thread.start()
    thread.join(limit_s)
    if made:
        return made[0]
    if failed:
        raise failed[0]
    raise SensorLostError(f"jtop: its service did not answer within {limit_s:.0f} s")


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split()) or type(error).__name__


def _mhz(clock: float) -> float:
    return clock / 1e3 if clock >= _KHZ else float(clock)


def _cpu(jetson: Any) -> dict[str, float]:
    cores = [core for core in jetson.cpu["cpu"] if core.get("online")]
    mhz = [core["freq"]["cur"] / 1e3 for core in cores if "cur" in core.get("freq", {})]
    row = {"cores_online": float(len(cores))}
    if mhz:
        row |= {
            "cpu_mhz": sum(mhz) / len(mhz),
            "cpu_mhz_min": min(mhz),
            "cpu_mhz_max": max(mhz),
        }
    return row


def _gpu(jetson: Any) -> dict[str, float]:
    for gpu in jetson.gpu.values():
        row = {}
        status, clocks = gpu.get("status") or {}, gpu.get("freq") or {}
        if status.get("load") is not None:
            row["gpu_percent"] = float(status["load"])
        if clocks.get("cur"):
            row["gpu_mhz"] = _mhz(clocks["cur"])
        # Only where jtop asks NVML: on Thor.
        if status.get("power_draw") is not None:
            row["gpu_power_w"] = float(status["power_draw"])
        return row  # the first one: a Jetson has one
    return {}


def _memory(jetson: Any) -> dict[str, float]:
    row = {}
    memory = dict(jetson.memory.items())
    ram, emc = memory.get("RAM") or {}, memory.get("EMC") or {}
    if ram.get("shared"):
        row["gpu_memory_used_bytes"] = ram["shared"] * 1024.0
    # 1 kHz is what jtop fills in where it may not read the clock.
    if emc.get("cur", 0) > 1:
        row["emc_mhz"] = emc["cur"] / 1e3
    if "val" in emc:
        row["emc_percent"] = float(emc["val"])
    return row


def _temperatures(jetson: Any) -> dict[str, float]:
    return {
        f"temperature_c.{'_'.join(zone.split())}": float(sensor["temp"])
        for zone, sensor in jetson.temperature.items()
        if sensor.get("online", True) and sensor["temp"] > _OFFLINE_C
    }


def _power(jetson: Any) -> dict[str, float]:
    power = jetson.power
    if not power:
        return {}
    row = {
        f"power_w.{'_'.join(rail.split())}": values["power"] / 1e3
        for rail, values in power["rail"].items()
        if values.get("online", True) and "power" in values
    }
    if row or "name" in power["tot"]:
        row["power_w.total"] = power["tot"]["power"] / 1e3
    return row


def _fan(jetson: Any) -> dict[str, float]:
    speeds = [speed for fan in jetson.fan.values() for speed in fan.get("speed", ())]
    turns = [rpm for fan in jetson.fan.values() for rpm in fan.get("rpm", ())]
    row = {}
    if speeds:
        row["fan_percent"] = float(max(speeds))
    if turns:
        row["fan_rpm"] = float(max(turns))
    return row


def _settings(jetson: Any) -> dict[str, float]:
    row = {}
    if jetson.jetson_clocks is not None:
        row["jetson_clocks"] = float(bool(jetson.jetson_clocks))
    if jetson.nvpmodel is not None:
        row["power_mode_id"] = float(jetson.nvpmodel.id)
    return row
