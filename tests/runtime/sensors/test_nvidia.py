# SPDX-License-Identifier: Apache-2.0
"""NVML's source: the real nvidia-ml-py over a library that stands in for the driver's."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

STANDIN = Path(__file__).parents[2] / "standins" / "nvml.c"

BUSY = {
    "load": 93,
    "sm_clock": 1980,
    "memory_clock": 2619,
    "power": 412_500,
    "temperature": 61,
    "memory_used": 3 * 2**30,
    "memory_total": 24 * 2**30,
    "pstate": 0,
    "reasons": 0,
    "sm_clock_max": 2520,
    "power_limit": 450_000,
    "persistence": 1,
}

Run = Callable[..., Any]


@pytest.fixture(scope="module")
def libraries(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Folders with a libnvidia-ml.so.1: of a driver of today, and of one of 2022."""
    compiler = shutil.which("gcc") or shutil.which("cc")
    if compiler is None:
        pytest.skip("needs a C compiler, to make what stands in for libnvidia-ml.so.1")
    found = {}
    for name, options in (("new", []), ("old", ["-DOLD_DRIVER"])):
        found[name] = tmp_path_factory.mktemp(name)
        target = str(found[name] / "libnvidia-ml.so.1")
        flags = ["-shared", "-fPIC", "-Wall", "-Wextra", "-Werror", *options]
        subprocess.run([compiler, *flags, "-o", target, str(STANDIN)], check=True)
    return found


@pytest.fixture
def run(libraries: dict[str, Path], tmp_path: Path) -> Run:
    """Return a function that runs code in a fresh interpreter, beside such a driver.

    The code has `put(**values)`, which changes what the GPU says, and calls `say(value)`.
    """

    def run(code: str, *, driver: str = "new", **environment: str) -> Any:
        state = tmp_path / "gpu"
        state.write_text("".join(f"{key} {value}\n" for key, value in BUSY.items()))
        before = (
            "import json, os\n"
            "from edge_imprint_runtime.sensors import SensorLostError, open_sensors\n"
            "from edge_imprint_runtime.sensors.nvidia import NvmlSource\n"
            "def put(**values):\n"
            "    with open(os.environ['NVML_STANDIN'], 'a') as file:\n"
            "        for key, value in values.items():\n"
            "            print(key.replace('__', '.'), value, file=file)\n"
            "def say(value): print('SAID', json.dumps(value))\n"
        )
        surroundings = {
            **{k: v for k, v in os.environ.items() if k != "CUDA_VISIBLE_DEVICES"},
            "LD_LIBRARY_PATH": str(libraries[driver]),
            "NVML_STANDIN": str(state),
            "NVML_STANDIN_CLOSED": str(tmp_path / "closed"),
            **environment,
        }
        done = subprocess.run(
            [sys.executable, "-c", before + code],
            env=surroundings,
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        said = [line[5:] for line in done.stdout.splitlines() if line.startswith("SAID ")]
        return json.loads(said[-1])

    return run


READ = "say(NvmlSource().read())"


@pytest.mark.parametrize("driver", ["new", "old"])
def test_readings(run: Run, driver: str) -> None:
    row = run(READ, driver=driver)
    reasons = {name: row.pop(name) for name in sorted(row) if "_throttle_" in name}
    clocks = {name: row.pop(name) for name in sorted(row) if name.startswith("gpu_clock_")}
    assert row == {
        "gpu_percent": 93.0,
        "gpu_mhz": 1980.0,
        "gpu_memory_mhz": 2619.0,
        "gpu_power_w": 412.5,
        "temperature_c.gpu": 61.0,
        "gpu_memory_used_bytes": 3.0 * 2**30,
        "gpu_pstate": 0.0,
    }
    assert set(reasons.values()) == set(clocks.values()) == {0.0}
    assert reasons.keys() >= {
        "gpu_throttle_hw_power_brake_slowdown",
        "gpu_throttle_hw_slowdown",
        "gpu_throttle_hw_thermal_slowdown",
        "gpu_throttle_sw_power_cap",
        "gpu_throttle_sw_thermal_slowdown",
        "gpu_throttle_sync_boost",
    }
    assert list(clocks) == [
        "gpu_clock_applications_clocks_setting",
        "gpu_clock_display_clock_setting",
        "gpu_clock_gpu_idle",
    ]


REASONS = {
    0x1: {"gpu_clock_gpu_idle"},
    0x2: {"gpu_clock_applications_clocks_setting"},
    0x4 | 0x20: {"gpu_throttle_sw_power_cap", "gpu_throttle_sw_thermal_slowdown"},
    0x40: {"gpu_throttle_hw_thermal_slowdown"},
    0x80: {"gpu_throttle_hw_power_brake_slowdown"},
}


@pytest.mark.parametrize("driver", ["new", "old"])
def test_reasons_by_name(run: Run, driver: str) -> None:
    code = (
        "source, rows = NvmlSource(), []\n"
        f"for bits in {[*REASONS]}:\n    put(reasons=bits)\n    rows.append(source.read())\n"
        "say(rows)"
    )
    kinds = ("gpu_throttle_", "gpu_clock_")
    rows = run(code, driver=driver)
    named = [{n for n, on in row.items() if n.startswith(kinds) and on} for row in rows]
    assert named == [*REASONS.values()]


def test_facts(run: Run) -> None:
    assert run("say(NvmlSource().facts())") == {
        "gpu_name": "NVIDIA Standin 0",
        "gpu_uuid": "GPU-standin-0",
        "gpu_count": 2,
        "gpu_memory_bytes": 24 * 2**30,
        "compute_capability": "8.9",
        "gpu_mhz_max": 2520,
        "gpu_power_limit_w": 450.0,
        "gpu_persistence": "on",
        "driver": "575.57.08",
        "cuda_of_driver": "12.9",
    }


def test_machine_facts_hold_the_gpu_and_leave_nvml_closed(run: Run, tmp_path: Path) -> None:
    code = (
        "from edge_imprint_runtime.machine import machine_facts\n"
        "sources = open_sensors()\n"
        "say([machine_facts(), machine_facts(sources)])\n"
        "for source in sources: source.close()"
    )
    alone, with_sources = run(code)
    assert alone["gpu_name"] == with_sources["gpu_name"] == "NVIDIA Standin 0"
    assert alone["driver"] == "575.57.08"
    assert (tmp_path / "closed").read_text() == "closed\n" * 2


@pytest.mark.parametrize(
    ("visible", "name"),
    [
        ("1", "NVIDIA Standin 1"),
        ("1,0", "NVIDIA Standin 1"),
        ("GPU-standin-1", "NVIDIA Standin 1"),
        ("", "NVIDIA Standin 0"),
    ],
)
def test_which_gpu(run: Run, visible: str, name: str) -> None:
    code = "say(NvmlSource().facts()['gpu_name'])"
    assert run(code, CUDA_VISIBLE_DEVICES=visible) == name


def test_what_a_gpu_has_not_is_left_out_and_asked_once(run: Run) -> None:
    code = (
        "put(error__power=3)\nsource = NvmlSource()\nfirst = source.read()\n"
        "put(error__power=0, error__load=999)\nsecond = source.read()\n"
        "put(error__load=0)\nthird = source.read()\n"
        "say([sorted(first.keys() ^ third.keys()), sorted(third.keys() - second.keys()),"
        " 'gpu_power_w' in third])"
    )
    # A failure that may pass costs one reading; what is not supported stays away.
    assert run(code) == [[], ["gpu_percent"], False]


@pytest.mark.parametrize(
    ("code", "message"), [(15, "NVML: GPU is lost"), (9, "NVML: Driver Not Loaded")]
)
@pytest.mark.parametrize("driver", ["new", "old"])
def test_a_gpu_that_vanishes(run: Run, driver: str, code: int, message: str) -> None:
    said = run(
        "source = NvmlSource()\nsource.read()\n"
        f"put(error={code})\n"
        "try:\n    source.read()\n"
        "except SensorLostError as error:\n    say(str(error))\n"
        "source.close()\nsource.close()",
        driver=driver,
    )
    assert said == message


def test_a_recorder_outlives_a_gpu(run: Run) -> None:
    said = run(
        "import time\n"
        "from edge_imprint_runtime.sensors import Recorder\n"
        "with Recorder(open_sensors(), 0.01) as recorder:\n"
        "    while len(recorder.trace().times_s) < 2: time.sleep(0.01)\n"
        "    put(error=15)\n"
        "    while not recorder.trace().lost: time.sleep(0.01)\n"
        "trace = recorder.trace().as_json()\n"
        "say([trace['lost'], trace['readings']['gpu_mhz'],"
        " trace['readings']['own_cpu_s']])"
    )
    lost, mhz, own = said
    assert lost == {"nvml": "NVML: GPU is lost"}
    assert mhz[0] == 1980.0
    assert mhz[-1] is None
    assert None not in own


@pytest.mark.parametrize(
    ("put", "message"),
    [
        ("error__init=9", "NVML: Driver Not Loaded"),
        ("error__handle=15", "NVML: GPU is lost"),
    ],
)
def test_what_can_not_be_opened_says_why(run: Run, put: str, message: str) -> None:
    code = (
        f"put({put})\ntry:\n    NvmlSource()\n"
        "except SensorLostError as error:\n    say(str(error))"
    )
    assert run(code) == message


def test_a_broken_driver_is_no_source_unless_there_is_a_gpu(run: Run, tmp_path: Path) -> None:
    code = (
        "from pathlib import Path\n"
        "put(error__init=9)\n"
        "say([source.name for source in open_sensors(root=Path(os.environ['ROOT']))])"
    )
    assert run(code, ROOT=str(tmp_path)) == ["psutil"]
    (tmp_path / "proc/driver/nvidia/gpus/0000:01:00.0").mkdir(parents=True)
    assert run(code, ROOT=str(tmp_path)) == ["psutil", "nvml"]


def test_without_the_package(monkeypatch: pytest.MonkeyPatch) -> None:
    from edge_imprint_runtime.sensors import SensorLostError
    from edge_imprint_runtime.sensors.nvidia import NvmlSource

    monkeypatch.setitem(sys.modules, "pynvml", None)
    with pytest.raises(SensorLostError) as caught:
        NvmlSource()
    assert str(caught.value) == (
        "the package nvidia-ml-py is not installed; run pip install 'edge-imprint[gpu]'"
    )


@pytest.mark.gpu
def test_a_real_gpu() -> None:
    from edge_imprint_runtime.sensors.nvidia import NvmlSource

    source = NvmlSource()
    try:
        row, facts = source.read(), source.facts()
    finally:
        source.close()
    assert row["gpu_mhz"] > 0
    assert 0 < row["temperature_c.gpu"] < 120
    assert any(name.startswith("gpu_throttle_") for name in row)
    assert facts["gpu_name"]
    assert facts["driver"]
