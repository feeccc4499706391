# SPDX-License-Identifier: Apache-2.0
"""TensorRT's runner against ONNX Runtime on the CPU, with each version's stand-in."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from edge_imprint_runtime.backends import Runner
from edge_imprint_runtime.backends.trt import TrtRunner
from edge_imprint_runtime.errors import (
    ClosedModelError,
    EngineFileError,
    EngineMismatchError,
    InputError,
    OutputMissingError,
    ParameterError,
)
from tests.standins import World
from tests.standins.cuda_runtime import device_of

MakeForm = Callable[[str], Any]
FORMS = ("plain", "calibrated", "frames", "input")


def agrees(runner: TrtRunner, form: Any, count: int, seed: int = 0) -> bool:
    """Whether the engine answers as the model does on the CPU."""
    images = form.images(count, seed)
    found = runner.run(list(runner.outputs), images, runner.hold(form.tensors))
    want = form.expected(images)
    assert [array.dtype for array in found] == [array.dtype for array in want]
    return all(np.allclose(a, b, rtol=0, atol=1e-6) for a, b in zip(found, want, strict=True))


# What it answers --------------------------------------------------------------------------


@pytest.mark.parametrize("cuda_graph", [False, True])
@pytest.mark.parametrize("name", FORMS)
def test_it_answers_as_onnx_runtime_does(
    world: World, make_form: MakeForm, name: str, cuda_graph: bool
) -> None:
    form, device = make_form(name), device_of(world)
    runner = TrtRunner(form.engine(world), cuda_graph=cuda_graph)
    for count in (1, 8, 3, 1, 8):  # back to a batch of before, too
        assert agrees(runner, form, count, seed=count)
    assert agrees(runner, form, 3, seed=9)
    launched = device.calls["cudaGraphLaunch"]
    assert launched == (6 if cuda_graph else 0)
    runner.close()
    assert device.live == {}


def test_what_it_says_of_itself(world: World, make_form: MakeForm) -> None:
    form = make_form("input")
    runner: Runner = TrtRunner(form.engine(world, batch=(2, 4, 8)))
    assert (runner.provider, runner.threads, runner.placement) == ("TensorRT", 0, None)
    assert runner.library == f"tensorrt {world.version}"
    assert runner.batch_limits == (2, 8)
    assert next(iter(runner.inputs)) == "images"
    assert runner.inputs["images"] == (("N", 16, 16, 3), "tensor(uint8)")
    assert runner.inputs.keys() == {"images", "proxies"}
    assert runner.defaults == {}
    assert runner.outputs["scores"][1] == "tensor(float)"
    assert runner.metadata["edge_imprint.labels"]
    runner.close()


def test_a_run_owns_what_it_gives_and_allocates_nothing(
    world: World, make_form: MakeForm
) -> None:
    form, device = make_form("input"), device_of(world)
    runner = TrtRunner(form.engine(world), cuda_graph=True)
    held = runner.hold(form.tensors)
    first = runner.run(["scores"], form.images(8), held)[0]
    kept = first.copy()
    runner.run(["scores"], form.images(3), held)
    before = device.calls.copy()
    for seed in range(20):
        runner.run(["scores"], form.images(8, seed + 1), held)
        runner.run(["scores"], form.images(3, seed + 1), held)
    made = device.calls - before
    assert not {name for name in made if "Alloc" in name or "Create" in name}
    assert not made.keys() & {"cudaFree", "cudaStreamBeginCapture", "set_tensor_address"}
    assert np.array_equal(first, kept)
    assert first.flags.owndata
    assert first.flags.writeable
    # A batch that stays the same is told to the context once.
    before = device.calls.copy()
    for _ in range(5):
        runner.run(["scores"], form.images(3), held)
    assert (device.calls - before)["set_input_shape"] == 0
    runner.close()


def test_arrays_that_are_not_contiguous_are_read_rightly(
    newest: World, make_form: MakeForm
) -> None:
    form = make_form("input")
    runner = TrtRunner(form.engine(newest))
    images = form.images(6)
    tensors = {name: np.asfortranarray(array) for name, array in form.tensors.items()}
    found = runner.run(["scores"], images[::2], runner.hold(tensors))[0]
    assert np.allclose(found, form.expected(images[::2])[0], rtol=0, atol=1e-6)
    runner.close()


def test_another_head_is_recorded_anew(newest: World, make_form: MakeForm) -> None:
    form, device = make_form("input"), device_of(newest)
    runner = TrtRunner(form.engine(newest), cuda_graph=True)
    images, captures = form.images(2), []
    for factor in (1.0, -1.0, 0.5):
        tensors = form.tensors | {"proxies": factor * form.tensors["proxies"]}
        held = runner.hold(tensors)
        for _ in range(3):
            found = runner.run(["scores"], images, held)[0]
            assert np.allclose(found, form.expected(images, tensors)[0], rtol=0, atol=1e-6)
        captures.append(device.calls["cudaStreamBeginCapture"])
    assert captures == [1, 2, 3]
    records = [kind for kind, _ in device.live.values() if kind.startswith("graph")]
    assert records == ["graph exec"]  # those of the old heads are gone
    runner.close()
    assert device.live == {}


def test_an_old_head_is_freed_when_nobody_needs_it(newest: World, make_form: MakeForm) -> None:
    form, device = make_form("input"), device_of(newest)
    runner = TrtRunner(form.engine(newest))
    images = form.images(2)
    held = runner.hold(form.tensors)
    runner.run(["scores"], images, held)
    one = device.used_bytes
    for _ in range(10):
        held = runner.hold(form.tensors)
        runner.run(["scores"], images, held)
    assert device.used_bytes == one
    runner.close()
    assert device.live == {}
    del held


# Stages, layers, memory -------------------------------------------------------------------


@pytest.mark.parametrize("cuda_graph", [False, True])
def test_stages(world: World, make_form: MakeForm, cuda_graph: bool) -> None:
    form, device = make_form("input"), device_of(world)
    runner = TrtRunner(form.engine(world), cuda_graph=cuda_graph)
    held, images = runner.hold(form.tensors), form.images(5)
    for _ in range(2):
        found, times = runner.run_stages(["label", "scores"], images, held)
        want = dict(zip(runner.outputs, form.expected(images), strict=True))
        assert np.array_equal(found[0], want["label"])
        assert np.allclose(found[1], want["scores"], rtol=0, atol=1e-6)
        assert list(times) == [
            f"{stage}{clock}"
            for stage in ("copy_in", "compute", "copy_out")
            for clock in ("", "_gpu")
        ]
        assert all(type(ns) is int and ns > 0 for ns in times.values())
        for stage in ("copy_in", "compute", "copy_out"):
            assert times[stage] >= times[f"{stage}_gpu"] - 1000
    assert device.calls["cudaEventCreate"] == 2  # for both
    runner.close()
    assert device.live == {}


def test_layers(world: World, make_form: MakeForm) -> None:
    form, device = make_form("input"), device_of(world)
    runner = TrtRunner(form.engine(world), cuda_graph=True)
    held, images = runner.hold(form.tensors), form.images(2)
    before = runner.run(["scores"], images, held)[0]
    layers = runner.layers(images, held, runs=4)
    times = [layer.mean_ns for layer in layers]
    assert times == sorted(times, reverse=True)
    # The stand-in says 0.25 ms of the first layer, 0.5 of the second, and so on.
    assert sorted(times) == pytest.approx([250_000 * (i + 1) for i in range(len(times))])
    described = json.loads(runner.inspect())["Layers"]
    assert {layer.name: layer.kind for layer in layers} == {
        layer["Name"]: layer["LayerType"] for layer in described
    }
    assert "Conv" in {layer.kind for layer in layers}
    after = runner.run(["scores"], images, held)[0]
    assert np.array_equal(before, after)
    with pytest.raises(ParameterError) as caught:
        runner.layers(images, held, runs=0)
    assert str(caught.value) == "runs must be an integer of at least 1, got 0"
    runner.close()
    assert device.live == {}


def test_layers_of_an_engine_without_details(newest: World, make_form: MakeForm) -> None:
    form = make_form("plain")
    runner = TrtRunner(form.engine(newest, verbosity="LAYER_NAMES_ONLY"))
    assert {layer.kind for layer in runner.layers(form.images(1))} == {""}
    runner.close()


def test_device_memory(world: World, make_form: MakeForm) -> None:
    form, device = make_form("input"), device_of(world)
    engine = form.engine(world)
    runner = TrtRunner(engine)
    before = runner.device_memory_bytes()
    held = runner.hold(form.tensors)
    size = sum(array.nbytes for array in form.tensors.values())
    after = runner.device_memory_bytes()
    assert before is not None
    assert after == before + size
    weights = next(size for kind, size in device.live.values() if kind == "weights")
    assert after == device.used_bytes - weights + engine.stat().st_size
    runner.close()
    del held


# What it refuses --------------------------------------------------------------------------


def refusals(
    form: Any, runner: TrtRunner, where: str
) -> dict[str, tuple[Callable[[], object], type]]:
    """Return calls that are refused, and how, by what they are told."""
    held, proxies = runner.hold(form.tensors), form.tensors["proxies"]
    size, images = proxies.shape[0], form.images(2)
    batch = f"{where} was compiled for 1 to 8 images a run, got"
    beside = "beside its images; compile the model that the head was exported with"
    return {
        f"{batch} 9; give others, or compile it with another --batch": (
            lambda: runner.run(["scores"], form.images(9), held),
            InputError,
        ),
        f"{batch} 0; give others, or compile it with another --batch": (
            lambda: runner.run(["scores"], form.images(0), held),
            InputError,
        ),
        "images must be of shape from [1, 16, 16, 3] to [8, 16, 16, 3], for which "
        f"{where} was compiled, got [2, 15, 16, 3]": (
            lambda: runner.run(["scores"], images[:, :15], held),
            InputError,
        ),
        "images must be an array of uint8, got float32": (
            lambda: runner.run(["scores"], images.astype(np.float32), held),
            InputError,
        ),
        "images must be an array of uint8, got list": (
            lambda: runner.run(["scores"], images.tolist(), held),
            InputError,
        ),
        f"{where} has no output 'proxy', it has scores, label, embedding; export and compile "
        "the model with it": (
            lambda: runner.run(["scores", "proxy"], images, held),
            OutputMissingError,
        ),
        f"{where} takes proxies beside its images, got nothing; give what hold returned": (
            lambda: runner.run(["scores"], images),
            InputError,
        ),
        "proxies was not held by this model; give what hold returned": (
            lambda: runner.run(["scores"], images, form.tensors),
            InputError,
        ),
        f"{where} takes no center {beside}": (
            lambda: runner.hold({"center": np.zeros(8, np.float32)}),
            InputError,
        ),
        f"{where} takes no images {beside}": (
            lambda: runner.hold({"images": images}),
            InputError,
        ),
        "proxies must be an array of float32, got float64": (
            lambda: runner.hold({"proxies": proxies.astype(np.float64)}),
            InputError,
        ),
        f"proxies must be of shape from [{size}, 5] to [{size}, 30], for which {where} was "
        f"compiled, got [{size}, 37]": (
            lambda: runner.hold({"proxies": np.zeros((size, 37), np.float32)}),
            InputError,
        ),
    }


def test_what_is_refused_before_the_device_hears_of_it(
    newest: World, make_form: MakeForm
) -> None:
    form, device = make_form("input"), device_of(newest)
    engine = form.engine(newest)
    runner = TrtRunner(engine)
    for message, (call, kind) in refusals(form, runner, str(engine)).items():
        started = device.calls["execute_async_v3"]
        with pytest.raises(kind) as caught:
            call()
        assert str(caught.value) == message
        assert device.calls["execute_async_v3"] == started
    assert agrees(runner, form, 2)
    runner.close()


def test_a_held_head_of_another_model(newest: World, make_form: MakeForm) -> None:
    form = make_form("input")
    engine = form.engine(newest)
    one, other = TrtRunner(engine), TrtRunner(engine)
    held = other.hold(form.tensors)
    with pytest.raises(InputError, match="proxies was not held by this model"):
        one.run(["scores"], form.images(1), held)
    one.close()
    other.close()


@pytest.mark.parametrize("contexts", [0, 65, True, 2.0])
def test_contexts_out_of_range(newest: World, make_form: MakeForm, contexts: Any) -> None:
    with pytest.raises(ParameterError) as caught:
        TrtRunner(make_form("plain").engine(newest), contexts=contexts)
    assert str(caught.value) == f"contexts must be an integer from 1 to 64, got {contexts!r}"


def test_a_closed_model(world: World, make_form: MakeForm) -> None:
    form = make_form("input")
    runner = TrtRunner(form.engine(world))
    held, images = runner.hold(form.tensors), form.images(1)
    runner.run(["scores"], images, held)
    runner.close()
    runner.close()
    for call in (
        lambda: runner.run(["scores"], images, held),
        lambda: runner.run_stages(["scores"], images, held),
        lambda: runner.layers(images, held),
        lambda: runner.hold(form.tensors),
        runner.inspect,
        runner.device_memory_bytes,
    ):
        with pytest.raises(ClosedModelError) as caught:
            call()
        assert str(caught.value) == ("the model was closed; open it again")
    assert device_of(world).live == {}


def test_what_nobody_closed_closes_itself(newest: World, make_form: MakeForm) -> None:
    form = make_form("input")
    runner = TrtRunner(form.engine(newest))
    held = runner.hold(form.tensors)
    runner.run(["scores"], form.images(1), held)
    del runner
    assert device_of(newest).live == {}
    del held


# Engines that don't fit -------------------------------------------------------------------


def test_nothing_is_deserialized_that_does_not_fit(
    world: World, make_form: MakeForm, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine = make_form("plain").engine(world)
    world.faults["deserialize_cuda_engine"] = "must not be called"
    world.compute_capability, world.gpu_name = (9, 0), "H200"
    with pytest.raises(EngineMismatchError, match="was built for the GPU 'Orin'"):
        TrtRunner(engine)
    assert device_of(world).live == {}


def test_none_from_tensorrt_holds_what_its_logger_was_told(
    world: World, make_form: MakeForm
) -> None:
    engine = make_form("plain").engine(world)
    world.faults["deserialize_cuda_engine"] = "Error Code 4: the plan's weights are gone"
    with pytest.raises(EngineFileError) as caught:
        TrtRunner(engine)
    assert (
        f"TensorRT {world.version} can't load {engine}: Error Code 4: the plan's weights "
        in (str(caught.value))
    )
    assert device_of(world).live == {}


def test_another_driver_is_noted(newest: World, make_form: MakeForm) -> None:
    runner = TrtRunner(make_form("plain").engine(newest, driver="11.8"))
    assert len(runner.notes) == 1
    assert "11.8" in runner.notes[0]
    runner.close()
