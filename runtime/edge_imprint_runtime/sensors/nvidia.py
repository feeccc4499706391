# SPDX-License-Identifier: Apache-2.0
"""A GPU of NVIDIA's that is no Jetson's, through nvidia-ml-py (`pynvml`)."""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from contextlib import suppress
from typing import Any

from edge_imprint_runtime.sensors.source import Facts, SensorLostError

__all__ = ["NvmlSource"]

# After these no call will answer again.
_GONE = (
    "NVML_ERROR_UNINITIALIZED",
    "NVML_ERROR_DRIVER_NOT_LOADED",
    "NVML_ERROR_LIBRARY_NOT_FOUND",
    "NVML_ERROR_GPU_IS_LOST",
    "NVML_ERROR_RESET_REQUIRED",
    "NVML_ERROR_GPU_NOT_FOUND",
)
# After these a reading is not asked for again: this GPU or this driver has it not.
_NEVER = (
    "NVML_ERROR_NOT_SUPPORTED",
    "NVML_ERROR_NO_PERMISSION",
    "NVML_ERROR_FUNCTION_NOT_FOUND",
    "NVML_ERROR_INVALID_ARGUMENT",
    "NVML_ERROR_ARGUMENT_VERSION_MISMATCH",
)
# Why a clock is not at its highest, without being slowed down: idle, or set so.
_NO_SLOWDOWN = ("gpu_idle", "applications_clocks_setting", "display_clock_setting")
_ALIASES = ("user_defined_clocks",)


class NvmlSource:
    """NVML's readings of one GPU.

    Readings: ``gpu_percent``, ``gpu_mhz`` (the multiprocessors'), ``gpu_memory_mhz``,
    ``gpu_power_w``, ``temperature_c.gpu``, ``gpu_memory_used_bytes``, ``gpu_pstate`` (0: the
    fastest), and a 0 or 1 for each reason why its clock is not higher, by NVML's name:
    ``gpu_throttle_REASON`` where it is slowed down, ``gpu_clock_REASON`` where it is idle or
    was set so.

    Raises:
        SensorLostError: nvidia-ml-py, the driver or the GPU is not there.
    """

    name = "nvml"

    def __init__(self) -> None:
        try:
            import pynvml
        except ImportError:
            raise SensorLostError(
                "the package nvidia-ml-py is not installed; "
                "run pip install 'edge-imprint[gpu]'"
            ) from None
        self._nvml: Any = pynvml
        self._open = False
        self._gone = _codes(pynvml, _GONE)
        self._never = _codes(pynvml, _NEVER)
        try:
            pynvml.nvmlInit()
            self._open = True
            self._gpu = _handle(pynvml)
            self._reasons, self._ask_reasons = self._find_reasons()
        except pynvml.NVMLError as error:
            self.close()
            raise SensorLostError(f"NVML: {error}") from None
        self._takes: list[Callable[[], dict[str, float]]] = [
            self._load,
            lambda: {"gpu_mhz": self._clock(pynvml.NVML_CLOCK_SM)},
            lambda: {"gpu_memory_mhz": self._clock(pynvml.NVML_CLOCK_MEM)},
            self._power,
            self._temperature,
            self._memory,
            lambda: {"gpu_pstate": float(pynvml.nvmlDeviceGetPerformanceState(self._gpu))},
            self._throttle,
        ]

    def read(self) -> dict[str, float]:
        """Read the GPU.

        Raises:
            SensorLostError: The GPU fell off its bus, or its driver was taken away.
        """
        row: dict[str, float] = {}
        for take in tuple(self._takes):
            try:
                row |= take()
            except self._nvml.NVMLError as error:
                if error.value in self._gone:
                    raise SensorLostError(f"NVML: {error}") from None
                if error.value in self._never:
                    self._takes.remove(take)
        return row

    def facts(self) -> Facts:
        """Return the GPU's name, memory, limits, driver and the CUDA that the driver knows."""
        nvml, gpu = self._nvml, self._gpu
        facts: Facts = {}
        for key, ask in (
            ("gpu_name", lambda: _text(nvml.nvmlDeviceGetName(gpu))),
            ("gpu_uuid", lambda: _text(nvml.nvmlDeviceGetUUID(gpu))),
            ("gpu_count", nvml.nvmlDeviceGetCount),
            ("gpu_memory_bytes", lambda: int(nvml.nvmlDeviceGetMemoryInfo(gpu).total)),
            (
                "compute_capability",
                lambda: "{}.{}".format(*nvml.nvmlDeviceGetCudaComputeCapability(gpu)),
            ),
            ("gpu_mhz_max", lambda: nvml.nvmlDeviceGetMaxClockInfo(gpu, nvml.NVML_CLOCK_SM)),
            (
                "gpu_power_limit_w",
                lambda: nvml.nvmlDeviceGetPowerManagementLimit(gpu) / 1e3,
            ),
            ("gpu_persistence", lambda: _on(nvml.nvmlDeviceGetPersistenceMode(gpu))),
            ("driver", lambda: _text(nvml.nvmlSystemGetDriverVersion())),
            ("cuda_of_driver", lambda: _cuda(nvml.nvmlSystemGetCudaDriverVersion_v2())),
        ):
            with suppress(nvml.NVMLError):
                facts[key] = ask()
        return facts

    def close(self) -> None:
        """Let go of NVML."""
        if self._open:
            self._open = False
            with suppress(self._nvml.NVMLError):
                self._nvml.nvmlShutdown()

    def _load(self) -> dict[str, float]:
        return {"gpu_percent": float(self._nvml.nvmlDeviceGetUtilizationRates(self._gpu).gpu)}

    def _clock(self, kind: int) -> float:
        return float(self._nvml.nvmlDeviceGetClockInfo(self._gpu, kind))

    def _power(self) -> dict[str, float]:
        return {"gpu_power_w": self._nvml.nvmlDeviceGetPowerUsage(self._gpu) / 1e3}

    def _memory(self) -> dict[str, float]:
        used = self._nvml.nvmlDeviceGetMemoryInfo(self._gpu).used
        return {"gpu_memory_used_bytes": float(used)}

    def _temperature(self) -> dict[str, float]:
        nvml = self._nvml
        # The old call goes with CUDA 14; drivers before 570 have not the new one.
        try:
            found = nvml.nvmlDeviceGetTemperatureV(self._gpu, nvml.NVML_TEMPERATURE_GPU)
        except (AttributeError, nvml.NVMLError) as error:
            if getattr(error, "value", None) in self._gone:
                raise
            found = nvml.nvmlDeviceGetTemperature(self._gpu, nvml.NVML_TEMPERATURE_GPU)
        return {"temperature_c.gpu": float(found)}

    def _throttle(self) -> dict[str, float]:
        bits = self._ask_reasons(self._gpu)
        return {name: float(bool(bits & bit)) for name, bit in self._reasons.items()}

    def _find_reasons(self) -> tuple[dict[str, int], Callable[[Any], int]]:
        """Name each reason, and find the call that this driver has; it was renamed once."""
        nvml = self._nvml
        bits = {}
        for word in ("Throttle", "Event"):
            for constant in dir(nvml):
                found = re.fullmatch(rf"nvmlClocks{word}Reason(\w+)", constant)
                if found is None or found[1] in ("All", "None"):
                    continue
                reason = re.sub(r"(?<!^)(?=[A-Z])", "_", found[1]).lower()
                if reason not in _ALIASES:
                    kind = "clock" if reason in _NO_SLOWDOWN else "throttle"
                    bits[f"gpu_{kind}_{reason}"] = int(getattr(nvml, constant))
        for word in ("Event", "Throttle"):
            ask = getattr(nvml, f"nvmlDeviceGetCurrentClocks{word}Reasons", None)
            if ask is None:
                continue
            try:
                ask(self._gpu)
            except nvml.NVMLError as error:
                if error.value in self._never:
                    continue
            return bits, ask
        return {}, lambda _gpu: 0


def _codes(nvml: Any, names: tuple[str, ...]) -> set[int]:
    return {getattr(nvml, name) for name in names if hasattr(nvml, name)}


def _handle(nvml: Any) -> Any:
    first = os.environ.get("CUDA_VISIBLE_DEVICES", "").partition(",")[0].strip()
    if first.startswith(("GPU-", "MIG-")):
        return nvml.nvmlDeviceGetHandleByUUID(first)
    return nvml.nvmlDeviceGetHandleByIndex(int(first) if first.isdigit() else 0)


def _text(value: str | bytes) -> str:
    return value.decode() if isinstance(value, bytes) else value


def _on(value: int) -> str:
    return "on" if value else "off"


def _cuda(value: int) -> str:
    return f"{value // 1000}.{value % 1000 // 10}"
