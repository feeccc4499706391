# SPDX-License-Identifier: Apache-2.0
"""Many threads on one engine: each has a context to itself, answers are as in a row."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest

from edge_imprint_runtime.backends.cuda import Cuda
from edge_imprint_runtime.backends.trt import TrtRunner
from edge_imprint_runtime.backends.trt_lane import Lane
from edge_imprint_runtime.errors import (
    ClosedModelError,
    DeviceError,
    DeviceMemoryError,
    ParameterError,
)
from tests.standins import World
from tests.standins.cuda_runtime import Device, device_of

MakeForm = Callable[[str], Any]


def kinds(device: Device, kind: str) -> int:
    """Count what is live of a kind."""
    return sum(1 for found, _ in device.live.values() if found == kind)


def all_at_once(device: Device, runner: TrtRunner, form: Any, threads: int) -> list[Any]:
    """Run in so many threads at the same time, all on the device before one is done."""
    meeting = threading.Barrier(threads)
    original = Device.wait

    def wait(self: Device, stream: Any) -> None:
        if self is device and threading.current_thread() is not threading.main_thread():
            meeting.wait(120)
        original(self, stream)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Device, "wait", wait)
        with ThreadPoolExecutor(threads) as pool:
            return [
                future.result()
                for future in [
                    pool.submit(runner.run, ["scores"], form.images(2, seed), {})
                    for seed in range(threads)
                ]
            ]


@pytest.mark.parametrize("cuda_graph", [False, True])
def test_eight_threads_answer_as_one(
    world: World, make_form: MakeForm, cuda_graph: bool
) -> None:
    form, device = make_form("input"), device_of(world)
    flags = ["PROFILE_SHARING_0806"] if world.version.startswith("8.6") else []
    runner = TrtRunner(form.engine(world, flags=flags), cuda_graph=cuda_graph)
    held = runner.hold(form.tensors)
    given = [form.images(1 + seed % 8, seed) for seed in range(200)]
    serial = [runner.run(["scores", "label"], images, held) for images in given]
    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(lambda x: runner.run(["scores", "label"], x, held), given))
    for one, other in zip(serial, found, strict=True):
        for a, b in zip(one, other, strict=True):
            assert np.array_equal(a, b)
    assert kinds(device, "stream") <= (1 if world.version.startswith("8.5") else 4)
    runner.close()
    assert device.live == {}


def test_a_context_for_each_of_four_threads_and_none_for_more(
    newest: World, make_form: MakeForm
) -> None:
    form, device = make_form("plain"), device_of(newest)
    runner = TrtRunner(form.engine(newest))
    assert kinds(device, "scratch") == 1
    found = all_at_once(device, runner, form, 4)
    assert kinds(device, "scratch") == kinds(device, "stream") == 4
    for seed, scores in enumerate(found):
        want = form.expected(form.images(2, seed))[0]
        assert np.allclose(scores[0], want, rtol=0, atol=1e-6)
    with ThreadPoolExecutor(16) as pool:
        list(pool.map(lambda _: runner.run(["scores"], form.images(1)), range(200)))
    assert kinds(device, "scratch") == 4
    runner.close()
    assert device.live == {}


def test_contexts_that_are_asked_for_are_made_at_once(
    newest: World, make_form: MakeForm
) -> None:
    form, device = make_form("plain"), device_of(newest)
    runner = TrtRunner(form.engine(newest), contexts=6)
    assert kinds(device, "scratch") == 6
    all_at_once(device, runner, form, 6)
    assert kinds(device, "scratch") == 6
    runner.close()
    assert device.live == {}


# TensorRT 8: a profile serves one context --------------------------------------------------


def eight(world: World) -> bool:
    """Whether contexts share no profile, unless the engine was built so."""
    return world.version.startswith("8.")


def test_threads_wait_where_contexts_share_no_profile(
    world: World, make_form: MakeForm
) -> None:
    form, device = make_form("plain"), device_of(world)
    runner = TrtRunner(form.engine(world))
    with ThreadPoolExecutor(8) as pool:
        jobs = [pool.submit(runner.run, ["scores"], form.images(1, i)) for i in range(100)]
        found = [job.result()[0] for job in jobs]
    assert np.array_equal(found[7], runner.run(["scores"], form.images(1, 7))[0])
    if eight(world):
        assert kinds(device, "scratch") == 1
    runner.close()
    assert device.live == {}


def test_more_contexts_than_profiles_are_refused(world: World, make_form: MakeForm) -> None:
    form, device = make_form("plain"), device_of(world)
    engine = form.engine(world, profiles=2)
    runner = TrtRunner(engine, contexts=2)
    all_at_once(device, runner, form, 2)
    runner.close()
    if eight(world):
        with pytest.raises(ParameterError) as caught:
            TrtRunner(engine, contexts=3)
        assert str(caught.value) == (
            f"contexts=3 is more than {engine} serves: with TensorRT {world.version} each "
            "needs a profile of the engine's to itself, and it has 2; ask for as many"
        )
    else:
        TrtRunner(engine, contexts=3).close()
    assert device.live == {}


def test_a_profile_that_is_found_in_use_only_later(newest: World, make_form: MakeForm) -> None:
    form, device = make_form("plain"), device_of(newest)
    runner = TrtRunner(form.engine(newest))
    said = "Profile 0 has been chosen by another IExecutionContext. Use another"
    runner._loaded.log.lines.append(("ERROR", said))
    device.fail("set_input_shape", "cudaErrorUnknown", times=1)
    original = runner._loaded.engine.say
    runner._loaded.engine.say = lambda severity, text: original(severity, said)
    found = []
    with runner._pool.one():  # the one lane is in use, a second can't be had
        waiting = threading.Thread(
            target=lambda: found.append(runner.run(["label"], form.images(1)))
        )
        waiting.start()
        waiting.join(0.1)
        assert waiting.is_alive()
    waiting.join(120)
    assert len(found) == 1
    assert kinds(device, "stream") == 1
    runner.close()


def test_what_was_said_of_profiles_is_not_told_of_other_errors(
    world: World, make_form: MakeForm
) -> None:
    form = make_form("plain")
    runner = TrtRunner(form.engine(world, profiles=2), contexts=2)
    assert runner._loaded.log.errors() == ""
    runner.close()


def test_layers_need_no_second_profile(world: World, make_form: MakeForm) -> None:
    form = make_form("plain")
    runner = TrtRunner(form.engine(world), contexts=1)
    assert len(runner.layers(form.images(1), runs=1)) > 5
    runner.run(["scores"], form.images(1))
    runner.close()


# A head that is swapped --------------------------------------------------------------------


@pytest.mark.parametrize("cuda_graph", [False, True])
def test_a_head_swapped_meanwhile_answers_as_the_old_or_the_new(
    newest: World, make_form: MakeForm, cuda_graph: bool
) -> None:
    form, device = make_form("input"), device_of(newest)
    runner = TrtRunner(form.engine(newest), cuda_graph=cuda_graph)
    images = form.images(2)
    heads = [
        form.tensors | {"proxies": form.tensors["proxies"][:, : 5 * classes]}
        for classes in (3, 2, 1)
    ]
    wants = [form.expected(images, tensors)[0] for tensors in heads]
    known = [runner.hold(heads[0])]
    done = threading.Event()
    wrong: list[Any] = []

    def predict() -> None:
        while not done.is_set():
            held = known[0]
            scores = runner.run(["scores"], images, held)[0]
            if not any(
                scores.shape == want.shape and np.allclose(scores, want, atol=1e-6)
                for want in wants
            ):
                wrong.append(scores)

    with ThreadPoolExecutor(4) as pool:
        jobs = [pool.submit(predict) for _ in range(4)]
        for i in range(60):
            known[0] = runner.hold(heads[i % 3])
            time.sleep(0.002)
        done.set()
        for job in jobs:
            job.result()
    assert wrong == []
    runner.run(["scores"], images, known[0])
    held = sum(a.nbytes for a in heads[2].values())
    runner_bytes = runner.device_memory_bytes()
    known.clear()
    runner.hold({})
    freed = runner.device_memory_bytes()
    assert runner_bytes is not None
    assert freed is not None
    assert runner_bytes - freed == held  # of sixty heads the last alone was left
    runner.close()
    assert device.live == {}


# Closing -----------------------------------------------------------------------------------


def test_close_waits_for_a_run_and_refuses_the_rest(
    newest: World, make_form: MakeForm
) -> None:
    form, device = make_form("plain"), device_of(newest)
    runner = TrtRunner(form.engine(newest), contexts=1)
    there, go = threading.Event(), threading.Event()
    original = device.wait

    def wait(stream: Any) -> None:
        if threading.current_thread().name.startswith("running"):
            there.set()
            assert go.wait(120)
        original(stream)

    device.wait = wait  # type: ignore[method-assign]
    with (
        ThreadPoolExecutor(1, "running") as running,
        ThreadPoolExecutor(2) as waiting,
        ThreadPoolExecutor(1) as closing,
    ):
        first = running.submit(runner.run, ["scores"], form.images(1))
        assert there.wait(120)
        others = [waiting.submit(runner.run, ["scores"], form.images(1)) for _ in range(2)]
        time.sleep(0.05)
        assert not any(job.done() for job in others)  # there is one context
        closed = closing.submit(runner.close)
        for job in others:
            with pytest.raises(ClosedModelError):
                job.result(120)
        assert not closed.done()
        go.set()
        assert len(first.result(120)[0]) == 1
        closed.result(120)
    assert device.live == {}


# Lanes that can't be made, and lanes that break ---------------------------------------------


@pytest.mark.parametrize("call", ["create_execution_context", "cudaMalloc", "cudaHostAlloc"])
def test_where_memory_is_short_threads_share_what_there_is(
    newest: World, make_form: MakeForm, call: str
) -> None:
    form, device = make_form("plain"), device_of(newest)
    runner = TrtRunner(form.engine(newest))
    device.fail(call, "cudaErrorMemoryAllocation")
    with ThreadPoolExecutor(8) as pool:
        jobs = [pool.submit(runner.run, ["scores"], form.images(1, i)) for i in range(64)]
        found = [job.result()[0] for job in jobs]
    assert np.array_equal(found[7], runner.run(["scores"], form.images(1, 7))[0])
    assert kinds(device, "stream") == 1
    runner.close()
    assert device.live == {}


def test_contexts_that_were_asked_for_and_do_not_fit(
    newest: World, make_form: MakeForm
) -> None:
    form, device = make_form("plain"), device_of(newest)
    engine = form.engine(newest)
    newest.memory_bytes = engine.stat().st_size + 2 * 4096 + 8192
    with pytest.raises(DeviceMemoryError, match="on the GPU where"):
        TrtRunner(engine, contexts=4)
    assert device.live == {}


def test_a_broken_lane_is_replaced(newest: World, make_form: MakeForm) -> None:
    form, device = make_form("plain"), device_of(newest)
    runner = TrtRunner(form.engine(newest), cuda_graph=True)
    before = runner.run(["scores"], form.images(2))[0]
    count = len(device.live)
    device.fail("cudaMemcpyAsync", "cudaErrorUnknown", times=1)
    with pytest.raises(DeviceError):
        runner.run(["scores"], form.images(2))
    assert kinds(device, "stream") == 0
    assert np.array_equal(runner.run(["scores"], form.images(2))[0], before)
    assert len(device.live) == count
    runner.close()
    assert device.live == {}


def test_any_thread_closes_on_the_model_s_own_gpu(
    newest: World, make_form: MakeForm, monkeypatch: pytest.MonkeyPatch
) -> None:
    newest.devices, found = 2, list[int]()
    Cuda().call("cudaSetDevice", 1)
    runner = TrtRunner(make_form("plain").engine(newest))
    close = Lane.close

    def spy(lane: Lane) -> None:
        found.append(Cuda().call("cudaGetDevice"))
        close(lane)

    monkeypatch.setattr(Lane, "close", spy)
    with ThreadPoolExecutor(1) as other:
        other.submit(runner.close).result()
        assert other.submit(Cuda().call, "cudaGetDevice").result() == 0
    assert found == [1]


def test_a_second_interrupt_leaves_nothing_to_wait_for(
    newest: World, make_form: MakeForm, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    form = make_form("plain")
    runner = TrtRunner(form.engine(newest))
    with monkeypatch.context() as patch:
        patch.setattr(Lane, "run", interrupted)
        patch.setattr(Lane, "close", interrupted)
        with pytest.raises(KeyboardInterrupt):
            runner.run(["scores"], form.images(1), {})
    closing = threading.Thread(target=runner.close, daemon=True)
    closing.start()
    closing.join(120)
    assert not closing.is_alive()
