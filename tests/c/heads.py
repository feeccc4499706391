# SPDX-License-Identifier: Apache-2.0
"""Heads in C, by way of tests/c/programs/head_check.c, and random heads of every kind."""

from __future__ import annotations

import os
import subprocess
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
from hypothesis import strategies as st

from edge_imprint_runtime import BackboneInfo, Head, Preprocess, Rule
from edge_imprint_runtime import errors as python_errors

Float32 = npt.NDArray[np.float32]

DISTANCES = ("inner_product", "cosine", "euclidean", "manhattan", "mahalanobis")
# What is called how in C; a head that contradicts its rule is no caller's mistake there.
STATUS = {
    python_errors.HeadFileError: "EI_HEAD_FILE",
    python_errors.HeadValueError: "EI_HEAD_VALUE",
    python_errors.HeadMismatchError: "EI_HEAD_MISMATCH",
    python_errors.LabelCountError: "EI_LABEL_COUNT",
    python_errors.NoContractError: "EI_NO_CONTRACT",
    python_errors.ContractVersionError: "EI_CONTRACT_VERSION",
    python_errors.ContractKeyError: "EI_CONTRACT_KEY",
    python_errors.ContractValueError: "EI_CONTRACT_VALUE",
    python_errors.NotTeachableError: "EI_NOT_TEACHABLE",
    python_errors.EmbeddingError: "EI_ZERO_EMBEDDING",
    python_errors.InputError: "EI_INPUT_VALUE",
}


@dataclass
class Answer:
    """A line of the program: a status, and what came with it."""

    status: str
    rest: str


class Heads:
    """A running head_check: heads by number, commands one by one.

    Args:
        program: The program.
        folder: Where files go that are passed to it.
        environment: What it sees beside the test's own.
    """

    def __init__(self, program: Path, folder: Path, **environment: str) -> None:
        self._folder = folder
        # Under a sanitizer, too, what can't be had is answered with NULL.
        options = os.environ.get("ASAN_OPTIONS", "") + ":allocator_may_return_null=1"
        self._process = subprocess.Popen(
            [program],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=os.environ | {"ASAN_OPTIONS": options} | environment,
        )

    def close(self) -> None:
        """End the program: it must have lived until then, and end well."""
        _, _ = self._process.communicate()
        assert self._process.returncode == 0

    def ask(self, *words: object) -> Answer:
        """Run one command."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(" ".join(map(str, words)) + "\n")
        self._process.stdin.flush()
        line = self._process.stdout.readline()
        assert line.endswith("\n"), f"head_check died of {words}"
        status, _, rest = line[:-1].partition(" ")
        return Answer(status, rest)

    def do(self, *words: object) -> str:
        """Run one command that must succeed; return what it answers."""
        answer = self.ask(*words)
        assert answer.status == "EI_OK", answer
        return answer.rest

    def file(self, data: bytes | Float32, name: str = "given") -> Path:
        """Write what a command is to read."""
        path = self._folder / name
        path.write_bytes(data if isinstance(data, bytes) else data.tobytes())
        return path

    def load(self, head: Head | bytes, slot: int = 0) -> Answer:
        """Have a head read."""
        return self.ask(
            "load", slot, self.file(head if isinstance(head, bytes) else head.to_bytes())
        )

    def written(self, slot: int = 0) -> bytes:
        """Return the bytes that C writes of a head."""
        path = self._folder / "written"
        self.do("write", slot, path)
        return path.read_bytes()

    def teach(
        self,
        label: str | bytes,
        rows: npt.ArrayLike,
        proxies: int = 5,
        slot: int = 0,
        to: int = 1,
    ) -> Answer:
        """Have a head taught."""
        given = np.asarray(rows, np.float32)
        name = label if isinstance(label, bytes) else label.encode()
        path = self.file(given, "rows")
        return self.ask("teach", slot, to, name.hex(), proxies, len(given), path)

    def forget(self, label: str, slot: int = 0, to: int = 1) -> Answer:
        """Have a class forgotten."""
        return self.ask("forget", slot, to, label.encode().hex())

    def tensors(self, slots: int, slot: int = 0) -> dict[str, Float32]:
        """Return the class tensors that C makes of a head, by name, in their order."""
        path = self._folder / "tensors"
        said = self.do("tensors", slot, slots, path)
        numbers, found = np.fromfile(path, np.float32), {}
        for word in said.split():
            name, _, sizes = word.partition(":")
            shape = [int(side) for side in sizes.split("x")]
            count = int(np.prod(shape))
            found[name], numbers = numbers[:count].reshape(shape), numbers[count:]
        assert not len(numbers)
        return found

    def nearest(self, proxies: Float32, rows: Float32, slot: int = 0) -> Float32:
        """Return each row's similarity to the nearest of some proxies, under a head's rule."""
        to = self._folder / "found"
        self.do(
            "nearest",
            slot,
            len(proxies),
            self.file(np.ascontiguousarray(proxies, np.float32)),
            len(rows),
            self.file(np.ascontiguousarray(rows, np.float32), "rows"),
            to,
        )
        return np.fromfile(to, np.float32)


BACKBONE = BackboneInfo(
    "tiny",
    "random:7",
    "ab" * 32,
    Preprocess(16, 20, mean=(0.485, 0.1, 1e-5), std=(1.0, 2, 3e7)),
)


@st.composite
def random_heads(draw: st.DrawFn, *, max_width: int = 9) -> Head:
    """Heads of every rule, with and without map, calibration, backbone and notes."""
    rng = np.random.default_rng(draw(st.integers(0, 2**16)))
    classes, size = draw(st.integers(1, 4)), draw(st.integers(1, max_width))
    index = [*range(classes), *draw(st.lists(st.integers(0, classes - 1), max_size=5))]
    transform = draw(st.booleans())
    width = draw(st.integers(1, max_width)) if transform else size
    distance = draw(st.sampled_from(DISTANCES))
    votes = draw(st.booleans())
    weighted = votes and distance != "inner_product" and draw(st.booleans())
    rule = Rule(
        draw(st.sampled_from(["none", "l2"])),
        "mnn" if votes else "max",
        distance,
        draw(st.integers(1, len(index))) if votes else 1,
        "distance" if weighted else "uniform",
    )
    proxies = rng.standard_normal((len(index), width))
    if draw(st.booleans()):
        proxies /= np.linalg.norm(proxies, axis=1, keepdims=True)
    calibrated = draw(st.booleans())
    return Head(
        proxies,
        rng.permutation(index),
        [f'class {c} \u20ac"\\' for c in range(classes)],
        rule,
        center=rng.standard_normal(size) / 4 if draw(st.booleans()) else None,
        transform=rng.standard_normal((size, width)) if transform else None,
        metric=rng.standard_normal((width, width + 1)) if distance == "mahalanobis" else None,
        threshold=rng.standard_normal(classes) if calibrated else None,
        temperature=draw(st.floats(1e-12, 1e12)) if calibrated else None,
        recipe="l2 kmeans:20 l2 l2 max",
        backbone=BACKBONE if draw(st.booleans()) else None,
        notes=[("made", "by hand \u00e9"), ("a", "")] if draw(st.booleans()) else (),
    )


def random_rows(head: Head, count: int, seed: int = 0) -> Float32:
    """Embeddings that cluster: (count, D)."""
    rng = np.random.default_rng(seed)
    middle = 4 * rng.standard_normal((3, head.embedding_size))
    noise = rng.standard_normal((count, head.embedding_size))
    return np.asarray(middle[np.arange(count) % 3] + noise, np.float32)
