# SPDX-License-Identifier: Apache-2.0
"""Stands in for jetson-stats (`jtop`): its client's properties over what its service sends.

The dictionaries have the forms of jetson-stats 4.2 (an Orin NX under JetPack 6) and 7.2 (a
Thor under JetPack 7). Where jetson-stats is installed, a test lays the real client over them.
"""

from __future__ import annotations

import contextlib
import copy
import sys
import types
from collections.abc import Iterator
from datetime import timedelta
from typing import Any

__all__ = ["BOARDS", "ORIN_NX", "THOR", "Board", "jtop_standin"]

_CORE = {
    "online": True,
    "governor": "schedutil",
    "freq": {"min": 115200, "max": 1984000, "cur": 1984000},
    "info_freq": {"min": 115200, "max": 1984000, "cur": 1984000},
    "idle_state": {"WFI": 0, "c7": 0},
    "model": "ARMv8 Processor rev 1 (v8l)",
    "user": 12.5,
    "nice": 0.0,
    "system": 3.1,
    "idle": 84.4,
}


def _rail(power: int, **more: Any) -> dict[str, Any]:
    return {
        "volt": 5000,
        "curr": power // 5,
        "warn": 3000,
        "crit": 4000,
        "power": power,
        "online": True,
        "avg": power,
        **more,
    }


ORIN_NX: dict[str, Any] = {
    "uptime": 1234.5,
    "cpu": {
        "total": {"user": 12.5, "nice": 0.0, "system": 3.1, "idle": 84.4},
        "cpu": [
            _CORE,
            {**_CORE, "freq": {"min": 115200, "max": 1984000, "cur": 729600}},
            {"online": False, "model": ""},
        ],
    },
    "gpu": {
        "ga10b": {
            "type": "integrated",
            "status": {
                "railgate": False,
                "tpc_pg_mask": False,
                "3d_scaling": True,
                "load": 87.3,
            },
            "freq": {
                "governor": "nvhost_podgov",
                "cur": 918000,
                "max": 918000,
                "min": 306000,
                "GPC": [916000, 917000],
            },
            "power_control": "auto",
        }
    },
    "processes": [],
    "mem": {
        "RAM": {
            "tot": 16000000,
            "used": 5000000,
            "free": 9000000,
            "buffers": 100000,
            "cached": 1900000,
            "shared": 524288,
            "lfb": 1900,
        },
        "SWAP": {"tot": 8000000, "used": 0, "cached": 0, "table": {}},
        "EMC": {
            "cur": 3199000,
            "max": 3199000,
            "min": 204000,
            "override": 0,
            "val": 21,
            "online": True,
        },
    },
    "engines": {},
    "temperature": {
        "cpu": {"temp": 51.25, "online": True},
        "cv0": {"temp": -256, "online": False},
        "gpu": {"temp": 49.5, "online": True},
        "tj": {"temp": 52.0, "online": True},
    },
    "power": {
        "rail": {"VDD_CPU_GPU_CV": _rail(2650), "VDD_SOC": _rail(1450)},
        "tot": {**_rail(7315), "name": "VDD_IN"},
    },
    "fan": {"pwmfan": {"speed": [38.0], "rpm": [2100], "profile": "quiet"}},
    "jc": {"enable": True, "thread": "", "config": True, "boot": False},
    "nvp": {"status": [True] * 4, "thread": False, "model": {"name": "MAXN", "id": 0}},
}

THOR: dict[str, Any] = {
    "uptime": 99.0,
    "cpu": {"total": {}, "cpu": [{**_CORE, "freq": {"min": 0, "max": 2601000}}] * 14},
    "gpu": {
        "Thor": {
            "type": "integrated",
            "status": {
                "load": 40.0,
                "3d_scaling": None,
                "railgate": None,
                "tpc_pg_mask": None,
                "power_draw": 21.5,
            },
            "freq": {"governor": "nvml", "cur": 1575, "max": 1575, "min": 0},
            "power_control": "nvml",
        }
    },
    "processes": [],
    "mem": {
        "RAM": {"tot": 128000000, "used": 1, "free": 1, "shared": 0, "shared_label": "VRAM"},
        "SWAP": {"tot": 0, "used": 0, "cached": 0, "table": {}},
        "EMC": {},
    },
    "engines": {},
    "temperature": {"nvme Composite": {"temp": 40.85, "max": 84.8, "online": True}},
    "power": {
        "rail": {
            "VDD_GPU": _rail(12000),
            "VDD_CPU_SOC_MSS": _rail(9000),
            "BAT": {"type": "Battery", "online": False, "power": 7},
        },
        "tot": {"power": 21000, "avg": 21000},
    },
    "fan": {},
    "nvp": {"status": [True] * 2, "thread": False, "model": {"name": "120W", "id": 1}},
}

BOARDS = {"orin_nx": ORIN_NX, "thor": THOR}

_BOARD = {
    "platform": {"Machine": "aarch64", "System": "Linux"},
    "hardware": {
        "Model": "NVIDIA Jetson Orin NX Engineering Reference Developer Kit",
        "P-Number": "p3767-0000",
        "Module": "NVIDIA Jetson Orin NX (16GB ram)",
        "SoC": "tegra234",
        "CUDA Arch BIN": "8.7",
        "L4T": "36.4.3",
        "Jetpack": "6.2",
    },
    "libraries": {
        "CUDA": "12.6.68",
        "cuDNN": "9.3.0.75",
        "TensorRT": "10.3.0.30",
        "VPI": "",
        "OpenCV": "4.8.0",
        "OpenCV-Cuda": False,
    },
}


class Board:
    """The client: `data` is what the service sends, `error` what its thread died of."""

    refuses: Exception | None = None
    last: Board

    def __init__(self, interval: float = 0.5) -> None:
        self.interval_user = interval
        self.data = copy.deepcopy(ORIN_NX)
        self.error: Exception | None = None
        self.running = False
        Board.last = self

    def start(self) -> None:
        if self.refuses is not None:
            raise self.refuses
        self.running = True

    def ok(self, spin: bool = False) -> bool:
        assert spin, "this would wait for the service"
        if self.error is not None:
            raise self.error
        return self.running

    def close(self) -> None:
        self.running = False

    @property
    def uptime(self) -> timedelta:
        return timedelta(seconds=self.data["uptime"])

    @property
    def board(self) -> dict[str, Any]:
        return _BOARD

    @property
    def nvpmodel(self) -> types.SimpleNamespace | None:
        return (
            types.SimpleNamespace(**self.data["nvp"]["model"]) if "nvp" in self.data else None
        )

    @property
    def jetson_clocks(self) -> bool | None:
        return self.data["jc"]["enable"] if "jc" in self.data else None

    @property
    def memory(self) -> dict[str, Any]:
        return self.data["mem"]

    def __getattr__(self, name: str) -> Any:
        if name in ("cpu", "gpu", "fan", "power", "temperature"):
            return self.data[name]
        raise AttributeError(name)


@contextlib.contextmanager
def jtop_standin(refuses: Exception | None = None) -> Iterator[type[Board]]:
    """Put a module `jtop` in place of jetson-stats'."""
    module = types.ModuleType("jtop")
    module.jtop = Board  # type: ignore[attr-defined]
    before = sys.modules.get("jtop")
    sys.modules["jtop"] = module
    Board.refuses = refuses
    try:
        yield Board
    finally:
        Board.refuses = None
        del sys.modules["jtop"]
        if before is not None:
            sys.modules["jtop"] = before
