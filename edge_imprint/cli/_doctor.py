# SPDX-License-Identifier: Apache-2.0
"""`edge-imprint doctor`."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import asdict
from typing import Any

import click

from edge_imprint.cli._console import print_json, progress, say
from edge_imprint_runtime.doctor import Finding, can_run, collect, findings
from edge_imprint_runtime.doctor.libraries import FAMILIES
from edge_imprint_runtime.errors import NothingRunsError

__all__ = ["doctor"]

_FORMAT = "edge-imprint.doctor/1"
_WAYS = {
    "TensorRT": "compile engines and run them (TensorRT {tensorrt})",
    "TensorrtExecutionProvider": "run models by ONNX Runtime's TensorRT provider",
    "CUDAExecutionProvider": "run models by ONNX Runtime's CUDA provider",
    "CPUExecutionProvider": "run models on the CPU (ONNX Runtime {onnxruntime})",
}


@click.command()
@click.option("--json", "as_json", is_flag=True, help="Print all that was found as JSON.")
def doctor(as_json: bool) -> None:
    """Tell what this machine can do, and how to mend what it can't.

    Each provider and TensorRT run a tiny model in a process of their own: what crashes or
    hangs is a finding. The exit status is 1 where nothing runs a model.
    """
    with progress() as tell:
        facts = collect(lambda step: tell(step, 0, 1))
    able, found = can_run(facts), findings(facts)
    if as_json:
        shown = [asdict(one) for one in found]
        print_json({"format": _FORMAT, "can_run": able, "findings": shown, "facts": facts})
    else:
        for line in _lines(facts, able, found):
            say(line)
    if not able:
        raise NothingRunsError(
            "nothing on this machine runs even a tiny model; see the findings, and mend the "
            "first"
        )


def _lines(facts: Mapping[str, Any], able: list[str], found: list[Finding]) -> Iterator[str]:
    versions = {
        "tensorrt": facts["tensorrt"].get("version"),
        "onnxruntime": facts["onnxruntime"].get("version"),
    }
    ways = [_WAYS[name].format(**versions) for name in able]
    yield "this machine can: " + (", ".join(ways) or "run nothing")
    yield ""
    yield from _group("machine", _machine(facts))
    yield from _group("GPU", _gpu(facts))
    yield from _group("software", _software(facts))
    yield from _group("tried", _tried(facts))
    if not found:
        yield "no findings"
        return
    yield "findings"
    for one in found:
        yield f"  {one.severity} {one.code}: {one.text}"
        if one.command:
            yield f"      {one.command}"


def _group(title: str, rows: Iterator[tuple[str, str]]) -> Iterator[str]:
    yield title
    for name, text in rows:
        yield f"  {name:26} {text}"
    yield ""


def _machine(facts: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    machine, system = facts["machine"], facts["system"]
    board = machine.get("board") or machine.get("cpu_model") or "unknown"
    yield "board", f"{board}, {machine.get('cores')} cores, {system['architecture']}"
    if system["is_jetson"]:
        jetpack, l4t = machine.get("jetpack", "unknown"), machine.get("l4t", "unknown")
        yield "JetPack", f"{jetpack} (L4T {l4t})"
        mode = machine.get("power_mode", "unknown")
        locked = machine.get("gpu_clocks_locked", "unknown")
        yield "power mode", f"{mode}; clocks locked: {locked}"
    container = f", in a container ({system['container']})" if system["container"] else ""
    yield "system", f"{system['os']}, Linux {system['kernel']}{container}"
    inside = ", in a virtual environment" if system["virtual_environment"] else ""
    yield "Python", f"{system['python']}{inside}"
    free, memory = system["memory_available_bytes"], system["memory_bytes"]
    yield "memory", f"{_gb(free)} of {_gb(memory)} free, swap {_gb(system['swap_bytes'])}"
    cache, free = _gb(system["cache_bytes"]), _gb(system["cache_free_bytes"])
    yield "disk", f"{free} free; {cache} kept in {system['cache_folder']}"
    readings = facts["readings"]
    governor = machine.get("cpu_governor")
    ruled = [f"governor {governor}"] if governor else []
    clock = _clock(readings.get("cpu_mhz_max"), machine.get("cpu_mhz_limit"))
    if clock or ruled:
        yield "CPU clock", ", ".join(clock + ruled)
    if "emc_mhz" in readings:
        yield "memory clock (EMC)", ", ".join(_clock(readings["emc_mhz"], None))
    if system["temperatures_c"]:
        zones = system["temperatures_c"].items()
        yield "temperatures", ", ".join(f"{name} {value:.0f} C" for name, value in zones)
    if system["encoding"] != "utf-8":
        yield "encoding", system["encoding"]


def _gpu(facts: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    gpu = facts["gpu"]
    for one in gpu["found"]:
        size = _gb(one["memory_bytes"])
        yield "name", f"{one['name']}, compute capability {one['compute_capability']}, {size}"
    if not gpu["found"]:
        yield "name", f"one that does not answer: {gpu['why']}" if gpu["present"] else "none"
    machine, readings = facts["machine"], facts["readings"]
    most = machine.get("gpu_mhz_max") or machine.get("gpu_mhz_limit")
    clock = _clock(readings.get("gpu_mhz"), most)
    if clock:
        yield "clock", ", ".join(clock)
    if "gpu_memory_mhz" in readings:
        yield "memory clock", ", ".join(_clock(readings["gpu_memory_mhz"], None))
    if facts["cuda"].get("driver_cuda"):
        yield "driver", f"takes CUDA up to {facts['cuda']['driver_cuda']}"


def _software(facts: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    for family, name in FAMILIES.items():
        entries = facts["libraries"][family]
        if entries and family not in ("cuda", "nvonnxparser"):
            yield name, ", ".join(f"{one['version']} ({one['origin']})" for one in entries)
    names = ("onnxruntime", "onnxruntime-gpu", "tensorrt", "cuda-python", "jetson-stats")
    packages = facts["packages"]
    there = [f"{name} {packages[name]['version']}" for name in names if name in packages]
    yield "packages", ", ".join(there) or "none of those that run models"


def _tried(facts: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    for name, tried in (*facts["providers"].items(), ("TensorRT", facts["tensorrt"])):
        if tried["status"] != "runs":
            stage = f" (at: {tried['stage']})" if tried.get("stage") else ""
            reason = str(tried.get("reason", ""))
            if tried.get("lacks"):
                reason = f"it does not find {', '.join(tried['lacks'])}"
            yield name, f"{tried['status']}{stage}: {reason[:200]}"
            continue
        text = f"runs: first run {tried['first_run_ms']:.1f} ms"
        if "median_ms" in tried:
            text += f", then {tried['median_ms']:.3f} ms"
        if "build_s" in tried:
            text += f", engine built in {tried['build_s']:.1f} s"
        yield name, text


def _clock(now_mhz: float | None, most_mhz: float | None) -> list[str]:
    """Say what is known of a clock."""
    now = [f"{now_mhz:,.0f} MHz now"] if now_mhz else []
    return now + ([f"{most_mhz:,.0f} MHz at most"] if most_mhz else [])


def _gb(count: int | None) -> str:
    return "unknown" if count is None else f"{count / 1e9:.1f} GB"
