# SPDX-License-Identifier: Apache-2.0
"""What the machine does while a model runs: clocks, load, temperatures, power.

Each source reads one well-kept library: psutil on any machine, nvidia-ml-py where there is a
GPU of NVIDIA's, jetson-stats on a Jetson. A library or a sensor that is missing costs its own
readings only.
"""

from __future__ import annotations

from pathlib import Path

from edge_imprint_runtime.sensors.board import is_jetson
from edge_imprint_runtime.sensors.recorder import Recorder
from edge_imprint_runtime.sensors.source import (
    Facts,
    LostSource,
    SensorLostError,
    Source,
)
from edge_imprint_runtime.sensors.trace import Trace

__all__ = [
    "Facts",
    "LostSource",
    "Recorder",
    "SensorLostError",
    "Source",
    "Trace",
    "open_sensors",
]


def open_sensors(*, root: Path = Path("/")) -> list[Source]:
    """Open every source that this machine has; the caller closes them.

    Args:
        root: Where the machine's files lie.

    Returns:
        psutil's source first. On a Jetson then jtop's, elsewhere NVML's where it answers, of
        the first GPU that CUDA_VISIBLE_DEVICES leaves; one
        that should be there and can't be opened is a `LostSource` that knows why.
    """
    from edge_imprint_runtime.sensors.host import HostSource

    return [HostSource(root), *_open_gpu(root)]


def _open_gpu(root: Path) -> list[Source]:
    if is_jetson(root):
        from edge_imprint_runtime.sensors.jetson import JtopSource

        try:
            return [JtopSource()]
        except SensorLostError as error:
            return [LostSource("jtop", str(error))]
    from edge_imprint_runtime.sensors.nvidia import NvmlSource

    try:
        return [NvmlSource()]
    except SensorLostError as error:
        there = any((root / "proc/driver/nvidia/gpus").glob("*"))
        return [LostSource("nvml", str(error))] if there else []
