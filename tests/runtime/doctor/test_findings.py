# SPDX-License-Identifier: Apache-2.0
"""Each rule, provoked by what a machine would show; and machines where all is well."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from edge_imprint_runtime.doctor import Finding, can_run, findings
from edge_imprint_runtime.doctor.findings import EVERY_RULE
from edge_imprint_runtime.doctor.seen import SEVERITIES, Seen

Facts = dict[str, Any]
Machine = Callable[..., Facts]
CUDA, TENSORRT = "CUDAExecutionProvider", "TensorrtExecutionProvider"
COMPILE = "edge-imprint compile MODEL.onnx --out MODEL.engine"


def found(facts: Facts) -> dict[str, Finding]:
    """Judge, and hold what holds for every answer."""
    json.dumps(facts)
    answers = findings(facts)
    order = [SEVERITIES.index(one.severity) for one in answers]
    assert order == sorted(order)
    for one in answers:
        assert one.text
        assert "\n" not in one.text + one.command
        assert not one.text.endswith(".")
    return {one.code: one for one in answers}


# Machines where all is well ----------------------------------------------------------------


@pytest.mark.parametrize("name", ["server", "gpu_server"])
def test_nothing_is_wrong_with_a_machine_where_all_runs(machine: Machine, name: str) -> None:
    assert found(machine(name)) == {}


@pytest.mark.parametrize("name", ["orin_nano", "thor"])
def test_a_jetson_as_it_comes_runs_engines(machine: Machine, name: str) -> None:
    facts = machine(name)
    assert can_run(facts) == ["TensorRT", "CPUExecutionProvider"]
    assert found(facts) == {
        "onnxruntime-without-gpu": Finding(
            "onnxruntime-without-gpu",
            "note",
            f"there is a GPU, and this ONNX Runtime {facts['onnxruntime']['version']} was "
            "built for the CPU alone: the GPU is used by engines",
            COMPILE,
            CUDA,
        )
    }


def test_jetpack_5_has_the_cpu(machine: Machine) -> None:
    facts = machine("jetpack_5")
    assert can_run(facts) == ["CPUExecutionProvider"]
    answers = found(facts)
    assert set(answers) == {
        "tensorrt-of-another-python",
        "onnxruntime-without-gpu",
        "power-mode",
    }
    assert answers["tensorrt-of-another-python"].text == (
        "TensorRT is in /usr/lib/python3.8/dist-packages, for another Python than this 3.10"
    )
    assert answers["onnxruntime-without-gpu"].severity == "warning"
    assert answers["power-mode"].command == "sudo nvpmodel -p --verbose"


def test_nothing_known_is_nothing_wrong() -> None:
    assert findings({}) == []
    assert can_run({}) == []


# One rule each -----------------------------------------------------------------------------

GONE = {"status": "missing", "stage": "import", "reason": "not installed"}

# A machine, what is changed of it, and the finding that this is to give.
PROVOKED = json.loads(Path(__file__).with_name("provoked.json").read_text())


@pytest.mark.parametrize("row", PROVOKED, ids=lambda row: f"{row['code']}-{row['machine']}")
def test_a_rule_speaks(machine: Machine, row: Facts) -> None:
    code, name = row["code"], row["machine"]
    assert code not in found(machine(name))
    one = found(machine(name, **row["changes"]))[code]
    got = {"severity": one.severity, "text": one.text, "command": one.command}
    assert got == {key: row[key] for key in got}


def test_packages_that_are_not_there(machine: Machine) -> None:
    facts = machine("orin_nano")
    del facts["packages"]["jetson-stats"], facts["packages"]["cuda-python"]
    answers = found(facts)
    assert answers["no-jetson-stats"].command == "pip install 'edge-imprint[jetson]'"
    assert answers["no-cuda-python"].text == (
        "TensorRT is here and cuda-python, through which engines are run, is not"
    )
    assert answers["no-cuda-python"].command == "pip install 'cuda-python<13'"


def test_every_rule_is_provoked_by_something_here(machine: Machine) -> None:
    facts = [machine(row["machine"], **row["changes"]) for row in PROVOKED]
    bare = machine("orin_nano")
    del bare["packages"]["jetson-stats"], bare["packages"]["cuda-python"]
    silent = [
        rule.__name__
        for rule in EVERY_RULE
        if not any(True for one in (*facts, bare) for _ in rule(Seen(one)))
    ]
    assert silent == []


def test_the_page_lists_every_code() -> None:
    page = (Path(__file__).parents[3] / "docs" / "doctor.md").read_text()
    codes = {row["code"] for row in PROVOKED} | {"no-cuda-python", "no-jetson-stats"}
    named = set(re.findall(r"`([a-z0-9-]+)`", page))
    listed = {
        code if not code.startswith("-") else f"{what}{code}"
        for code in named
        for what in ("provider", "tensorrt")
    }
    assert codes - listed == set()


@pytest.mark.parametrize("name", ["server", "gpu_server"])
def test_another_makers_gpu_is_not_spoken_of(machine: Machine, name: str) -> None:
    """A laptop's own GPU has a /dev/dri too, and CUDA wants none but a Jetson's."""
    closed = {"path": "/dev/dri/renderD128", "group": "render", "open": False}
    facts = machine(name, system={"device_files": [closed]})
    assert "gpu-files-closed" not in found(facts)


def test_what_stands_beside_onnxruntime_stays(machine: Machine) -> None:
    """Extensions and genai are packages of their own, and no builds of ONNX Runtime."""
    beside = {
        "onnxruntime-extensions": {"version": "0.13.0", "tags": []},
        "onnxruntime-genai": {"version": "0.9.0", "tags": []},
    }
    facts = machine("server", gpu={"present": True}, packages=beside)
    assert found(facts)["onnxruntime-without-gpu"].command.startswith(
        "pip uninstall -y onnxruntime && "
    )
    facts = machine("gpu_server", packages=beside, onnxruntime={"status": "crashes"})
    facts["packages"] = dict(sorted(facts["packages"].items()))
    assert found(facts)["onnxruntime-broken"].command.endswith(" onnxruntime-gpu")


def test_no_jetson_is_given_a_build_for_servers(machine: Machine) -> None:
    own = {"onnxruntime-gpu": {"version": "1.23.0", "tags": ["cp310-cp310-linux_aarch64"]}}
    facts = machine("orin_nano", packages=own)
    assert found(facts)["two-onnxruntimes"].command.endswith(" && pip install 'onnxruntime'")
    facts = machine("orin_nano", packages=own, onnxruntime={"status": "crashes"})
    del facts["packages"]["onnxruntime"]
    assert found(facts)["onnxruntime-broken"].command == ""


# Together ----------------------------------------------------------------------------------


def test_a_cause_is_said_once(machine: Machine) -> None:
    """Without a driver nothing on the GPU runs, which needs no finding for each."""
    failing = {"listed": True, "status": "fails", "stage": "session", "reason": "no start"}
    failing |= {"wants": [], "lacks": ["libcuda.so.1"]}
    facts = machine(
        "gpu_server",
        cuda=GONE,
        libraries={"cuda": []},
        providers={CUDA: failing, TENSORRT: failing},
        tensorrt={"status": "fails", "stage": "builder", "reason": "error 35"},
    )
    assert list(found(facts)) == ["no-driver"]


def test_an_installed_tensorrt_without_a_gpu_is_no_fault(machine: Machine) -> None:
    tried = {"status": "fails", "stage": "builder", "reason": "error 35", "version": "10.3.0"}
    assert findings(machine("server", tensorrt=tried)) == [
        Finding(
            "no-gpu",
            "note",
            "TensorRT 10.3.0 is installed, but this machine has no GPU of NVIDIA's: nothing "
            "to mend",
            "",
            "TensorRT",
        )
    ]


def test_l4t_tells_jetpack_where_its_release_is_not_known(machine: Machine) -> None:
    for l4t, expected in (("36.9.9", (6,)), ("39.9", (7,)), ("35.1", (5,)), ("32.7", (4,))):
        facts = machine("orin_nano", machine={"l4t": l4t, "jetpack": None})
        assert Seen(facts).jetpack == expected
    assert Seen(machine("server")).jetpack == ()


def test_what_ran_is_what_can_be_done(machine: Machine) -> None:
    facts = machine("gpu_server")
    assert can_run(facts) == ["TensorRT", TENSORRT, CUDA, "CPUExecutionProvider"]
    facts["providers"][CUDA]["status"] = "partly"
    facts["tensorrt"]["status"] = "wrong"
    assert can_run(facts) == [TENSORRT, "CPUExecutionProvider"]
    facts["providers"]["XnnpackExecutionProvider"] = facts["providers"][TENSORRT]
    assert "XnnpackExecutionProvider" not in can_run(facts)
