# SPDX-License-Identifier: Apache-2.0
"""What `gpu_check.py` runs in children: is it right, is it refused, does it come back?

Each takes a `Job` and returns what it found out; it raises `Failed` where that is not as it
should be, and `Skipped` where this machine has not what it needs.
"""

from __future__ import annotations

import contextlib
import json
import shutil
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from edge_imprint_runtime import open_model
from edge_imprint_runtime.doctor import collect, findings
from edge_imprint_runtime.doctor.libraries import needs_own_kernels
from edge_imprint_runtime.engine import (
    compile_engine,
    refit_engine,
    sidecar_path,
)
from edge_imprint_runtime.engine.tensorrt_api import load
from edge_imprint_runtime.errors import (
    EdgeImprintError,
    EngineFileError,
    EngineMismatchError,
    ProviderError,
    UnsupportedOptionError,
)
from edge_imprint_runtime.head import Head
from edge_imprint_runtime.model import Model
from gpu_models import read_answers, unpack

__all__ = ["Failed", "Job", "Skipped", "CHECKS", "hold", "engine_of"]

# How far a score (a cosine) may be from the oracle's, whose embeddings are of ONNX Runtime's
# CPU provider in the same precision.
TOLERANCES = {"fp32": 1e-4, "fp16": 1e-2, "int8": 5e-2}
RELOAD_S = 2.0
BATCH = (1, 1, 8)
THREADS = 8
# What a provider's error says where it is not built in, or misses its libraries.
_NOT_HERE = ("this ONNX Runtime has no ", " did not start")


class Failed(Exception):  # noqa: N818  (what happened, as the results say it)
    """Something is not as it should be."""


class Skipped(Exception):  # noqa: N818
    """This machine lacks what the check needs."""


@dataclass
class Job:
    """One check's surroundings.

    Attributes:
        packed: The folder that ``gpu_check_pack.py`` wrote.
        out: Where results go; models and engines lie in it.
        quick: Fewer runs, to see that all works.
        names: The models to check; none: all.
        found: What is found out, also where the check fails afterwards.
    """

    packed: Path
    out: Path
    quick: bool = False
    names: tuple[str, ...] = ()
    found: dict[str, Any] = field(default_factory=dict)

    @property
    def folder(self) -> Path:
        """Where the unpacked models lie."""
        return self.out / "models"

    def models(self, part: str = "fused") -> dict[str, dict[str, Any]]:
        """Unpack and name the models that are this part of a whole."""
        every = unpack(self.packed, self.folder)["models"]
        return {
            name: facts
            for name, facts in every.items()
            if facts["part"] == part
            and (not self.names or any(name.startswith(one) for one in self.names))
        }

    def answers(self, name: str) -> dict[str, npt.NDArray[np.generic]]:
        """Read what the oracle says of a model's images."""
        return read_answers(self.packed, name.removesuffix(".onnx"))

    def engine(self, name: str) -> Path:
        """Return where a model's engine lies."""
        return self.folder / f"{name.removesuffix('.onnx')}.engine"


def engine_of(job: Job, name: str) -> Path:
    """Return a model's engine, which an earlier check compiled.

    Raises:
        Skipped: It is not there.
    """
    path = job.engine(name)
    if not path.is_file():
        raise Skipped(f"{path.name} was not compiled")
    return path


def hold(model: Model, job: Job, name: str, precision: str) -> dict[str, float]:
    """Hold a model's answers against the oracle's.

    Raises:
        Failed: A score is further off than its precision allows, or a label is another where
            its margin is greater than what the scores may be off.
    """
    wanted, tolerance = job.answers(name), TOLERANCES[precision]
    got = model.predict(wanted["images"])
    off = float(np.abs(got.scores - wanted["scores"]).max())
    best = np.sort(wanted["scores"], axis=1)
    clear = best[:, -1] - best[:, -2] > 2 * tolerance
    same = got.label == wanted["label"]
    found = {
        "score_off": off,
        "labels_same": float(same.mean()),
        "labels_same_of_clear": float(same[clear].mean()) if clear.any() else 1.0,
        "clear": int(clear.sum()),
        "images": len(same),
    }
    job.found[name] = found
    if off > tolerance:
        raise Failed(f"{name}: a score is {off:.2g} off, more than {tolerance:g}")
    if found["labels_same_of_clear"] < 1:
        raise Failed(
            f"{name}: labels differ, {found['labels_same_of_clear']:.1%} are the same"
        )
    return found


# Providers ---------------------------------------------------------------------------------


def machine(job: Job) -> None:
    """Ask the doctor."""
    facts = collect()
    job.found["findings"] = [vars(one) for one in findings(facts)]
    job.found["facts"] = facts


def cpu_provider(job: Job) -> None:
    """Hold every model's answers on the CPU against the oracle's."""
    _provider(job, "cpu")


def cuda_provider(job: Job) -> None:
    """The same on ONNX Runtime's CUDA provider."""
    _provider(job, "cuda")


def tensorrt_provider(job: Job) -> None:
    """The same on ONNX Runtime's TensorRT provider, where the TensorRT it links is here."""
    try:
        _provider(job, "tensorrt")
    except ProviderError as error:
        if any(words in str(error) for words in _NOT_HERE):
            raise Skipped(str(error)) from error
        raise  # it started, and left nodes to others


def _provider(job: Job, backend: str) -> None:
    for name, facts in job.models().items():
        began = time.perf_counter()
        with open_model(job.folder / name, backend) as model:
            hold(model, job, name, facts["precision"])
            job.found[name] |= {
                "open_and_run_s": time.perf_counter() - began,
                "provider": model.provider,
                "nodes": None if model.placement is None else model.placement.nodes,
                "strays": [] if model.placement is None else list(model.placement.strays),
            }
            if job.found[name]["strays"]:
                raise Failed(f"{name}: {len(job.found[name]['strays'])} nodes ran elsewhere")


# Engines -----------------------------------------------------------------------------------


def tensorrt_compile(job: Job) -> None:
    """Compile every model and every backbone alone."""
    own = needs_own_kernels(load().version)
    job.found["own_kernels"] = own
    wrong = []
    for part in ("fused", "backbone", "teachable", "other"):
        for name in job.models(part):
            try:
                sidecar = compile_engine(
                    job.folder / name,
                    job.engine(name),
                    batch=BATCH,
                    own_kernels=own,
                    force=True,
                )
            except EdgeImprintError as error:
                wrong.append(name)
                job.found[name] = f"{type(error).__name__}: {error}"
            else:
                job.found[name] = {
                    "build_s": sidecar.build_s,
                    "bytes": sidecar.engine_bytes,
                    "tensorrt": sidecar.tensorrt,
                    "gpu": sidecar.gpu_name,
                }
    if wrong:
        raise Failed(f"{len(wrong)} were not compiled: {', '.join(wrong)}")


def tensorrt_parity(job: Job) -> None:
    """Hold every engine's answers against the oracle's."""
    wrong = []
    for name, facts in job.models().items():
        with open_model(engine_of(job, name)) as model:
            try:
                hold(model, job, name, facts["precision"])
            except Failed as failed:
                wrong.append(str(failed))
    if wrong:
        raise Failed("; ".join(wrong))


def engine_reload(job: Job) -> None:
    """Open each engine and answer once; the first also starts CUDA."""
    slow = []
    for name in job.models():
        images = job.answers(name)["images"][:1]
        path = engine_of(job, name)
        began = time.perf_counter()
        with open_model(path) as model:
            opened = time.perf_counter()
            model.predict(images)
            answered = time.perf_counter()
        job.found[name] = {"open_s": opened - began, "first_answer_s": answered - opened}
        if answered - began > RELOAD_S:
            slow.append(name)
    if slow:
        raise Failed(f"longer than {RELOAD_S:g} s: {', '.join(slow)}")


def staleness(job: Job) -> None:
    """Change an engine, its sidecar and its ONNX file: each must be refused."""
    name = next(iter(job.models()))
    source = engine_of(job, name)
    folder = job.out / "stale"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)

    def copied() -> Path:
        for file in (job.folder / name, source, sidecar_path(source)):
            shutil.copy(file, folder)
        return folder / source.name

    for what, kind, change in _CHANGES:
        engine = copied()
        change(engine, folder / name)
        try:
            open_model(engine).close()
        except kind as error:
            job.found[what] = str(error)
        else:
            raise Failed(f"{what}: it was opened all the same")
    with open_model(copied()) as model:
        hold(model, job, name, job.models()[name]["precision"])


def _flip(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 0x10
    path.write_bytes(data)


def _other_version(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[24] += 1  # the plan's own header: TensorRT's major version
    path.write_bytes(data)


def _edit(path: Path, key: str, value: object) -> None:
    facts = json.loads(path.read_text())
    path.write_text(json.dumps(facts | {key: value}))


_Change = tuple[str, type[EdgeImprintError], Callable[[Path, Path], object]]
_CHANGES: tuple[_Change, ...] = (
    ("a bit flipped in the engine", EngineFileError, lambda e, _: _flip(e)),
    (
        "the engine cut off",
        EngineFileError,
        lambda e, _: e.write_bytes(e.read_bytes()[: e.stat().st_size // 2]),
    ),
    ("the version in the plan's header", EngineFileError, lambda e, _: _other_version(e)),
    ("the sidecar gone", EngineFileError, lambda e, _: sidecar_path(e).unlink()),
    (
        "the GPU's name in the sidecar",
        EngineFileError,
        lambda e, _: _edit(sidecar_path(e), "gpu_name", "another GPU"),
    ),
    (
        "another ONNX file",
        EngineMismatchError,
        lambda _, m: m.write_bytes(m.read_bytes() + b"\0"),
    ),
)


def teachable_profile(job: Job) -> None:
    """Teach an engine a class, and let it forget it."""
    name = next(iter(job.models("teachable")), None)
    if name is None:
        raise Skipped("no teachable model is packed")
    engine = engine_of(job, name)
    images = job.answers("demo-fp32")["images"]
    with open_model(engine) as model:
        before = model.predict(images)
        model.teach("new", images[:3])
        after = model.predict(images[:3])
        job.found["taught"] = [after.labels[i] for i in after.label]
        job.found["classes"] = [len(before.labels), len(after.labels)]
        _same(model, model.head, images, job)
        model.forget("new")
        again = model.predict(images)
    if job.found["taught"] != ["new"] * 3:
        raise Failed(f"its own photos are {job.found['taught']} to it")
    if not np.array_equal(before.scores, again.scores):
        raise Failed("what was forgotten left a trace in the scores")


def _same(model: Model, head: Head | None, images: npt.NDArray[Any], job: Job) -> None:
    assert head is not None
    off = float(np.abs(model.predict(images).scores - head.scores(model.embed(images))).max())
    job.found["score_off"] = off
    if off > TOLERANCES["fp32"]:
        raise Failed(f"a score is {off:.2g} off what its head says")


def cuda_graph(job: Job) -> None:
    """Answers of a recorded graph are those of single launches."""
    for name in job.models():
        images = job.answers(name)["images"]
        with _both(engine_of(job, name)) as (plain, recorded):
            for count in (1, 2, 1, len(images)):
                one, two = plain.predict(images[:count]), recorded.predict(images[:count])
                if not np.array_equal(one.scores, two.scores):
                    raise Failed(f"{name}: batch {count} answers otherwise as a graph")
        job.found[name] = "equal"


@contextlib.contextmanager
def _both(engine: Path) -> Iterator[tuple[Model, Model]]:
    with open_model(engine) as plain, open_model(engine, cuda_graph=True) as recorded:
        yield plain, recorded


def threads(job: Job) -> None:
    """Eight threads on one model get what one gets."""
    runs = 50 if job.quick else 1_000
    for name in job.models():
        images = job.answers(name)["images"]
        with open_model(engine_of(job, name)) as model:
            alone = [model.predict(images[i : i + 1]).scores for i in range(len(images))]
            began = time.perf_counter()
            with ThreadPoolExecutor(THREADS) as crew:
                asked = [
                    crew.submit(_same_as_alone, model, images, alone, 3 * i, runs)
                    for i in range(THREADS)
                ]
            taken = time.perf_counter() - began
        job.found[name] = {"runs": THREADS * runs, "images_per_s": THREADS * runs / taken}
        wrong = sum(one.result() for one in asked)
        if wrong:
            raise Failed(f"{name}: {wrong} of {THREADS * runs} answers are not those of one")


def _same_as_alone(
    model: Model, images: npt.NDArray[Any], alone: list[Any], start: int, runs: int
) -> int:
    """Count the answers that are others than those given to one thread."""
    wrong = 0
    for turn in range(runs):
        i = (start + turn) % len(images)
        wrong += not np.array_equal(model.predict(images[i : i + 1]).scores, alone[i])
    return wrong


def batches(job: Job) -> None:
    """Batches above the profile are split, and one image is padded where it must be."""
    for name, facts in job.models().items():
        wanted = job.answers(name)
        images = np.concatenate([wanted["images"]] * 2)
        tolerance = TOLERANCES[facts["precision"]]
        with open_model(engine_of(job, name)) as model:
            for count in (1, BATCH[2], BATCH[2] + 1, len(images)):
                got = model.predict(images[:count])
                expected = np.concatenate([wanted["scores"]] * 2)[:count]
                off = float(np.abs(got.scores - expected).max())
                if len(got.label) != count or off > tolerance:
                    raise Failed(f"{name}: a batch of {count} is {off:.2g} off")
        job.found[name] = f"up to {len(images)} images"


def refit(job: Job) -> None:
    """Other proxies go into a refittable engine without a build."""
    name = next((one for one in job.models() if one == "demo-fp32.onnx"), None)
    if name is None:
        raise Skipped("the demo's fp32 model is not packed")
    old, new = job.folder / "refittable.engine", job.folder / "refitted.engine"
    try:
        sidecar = compile_engine(
            job.folder / name,
            old,
            batch=BATCH,
            refittable=True,
            own_kernels=needs_own_kernels(load().version),
            force=True,
        )
    except UnsupportedOptionError as error:
        raise Skipped(str(error)) from error
    began = time.perf_counter()
    refit_engine(old, job.folder / "demo-other.onnx", new, force=True)
    job.found |= {"build_s": sidecar.build_s, "refit_s": time.perf_counter() - began}
    with open_model(new) as model:
        hold(model, job, "demo-other.onnx", "fp32")


CHECKS: dict[str, Callable[[Job], None]] = {
    check.__name__: check
    for check in (
        machine, cpu_provider, cuda_provider, tensorrt_provider, tensorrt_compile,
        tensorrt_parity, engine_reload, staleness, teachable_profile, cuda_graph, threads,
        batches, refit,
    )
}  # fmt: skip
