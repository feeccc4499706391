# SPDX-License-Identifier: Apache-2.0
"""Write the fuzzers' first corpus: the contracts and heads of the Python tests, good and bad.

    python -m tests.c.fuzz.make_corpus FOLDER

makes FOLDER/contract and FOLDER/head. What is kept in tests/c/fuzz/corpus was minimised of
that and of what fuzzing found: clang's ``fuzz_head -merge=1 corpus/head FOLDER/head``.
"""

from __future__ import annotations

import hashlib
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np
from safetensors.numpy import save

from edge_imprint_runtime import Head, Rule
from edge_imprint_runtime.contract.codec import PREFIX
from edge_imprint_runtime.teaching import teach
from tests.runtime.test_contract_values import MALFORMED, MODEL
from tests.runtime.test_head_file import ARRAYS, BAD_ARRAYS, METADATA, NO_HEAD_FILES

MAX_BYTES = 2000


def contract_input(metadata: Mapping[str, str], *, model: bool) -> bytes:
    """Write metadata as fuzz_contract reads them."""
    entries = [
        key.removeprefix(PREFIX).encode("utf-8", "surrogatepass")
        + b"\1"
        + value.encode("utf-8", "surrogatepass")
        for key, value in metadata.items()
    ]
    return bytes([model]) + b"\2".join(entries)


def contracts() -> Iterator[bytes]:
    """Yield inputs of fuzz_contract."""
    yield contract_input(MODEL, model=True)
    yield contract_input(METADATA, model=False)
    yield contract_input(METADATA, model=True)
    for key in MODEL:
        yield contract_input({k: v for k, v in MODEL.items() if k != key}, model=True)
    for line in ("frame nv12 720x1280 bt709 full", "frame rgb any", "float32 embedding"):
        yield contract_input(MODEL | {PREFIX + "input": line}, model=True)
    for labels in ('["\\ud83d\\ude00","d\\u00f6g","a\\"b"]', '["é","😀"]', '["unknown"]'):
        yield contract_input(MODEL | {PREFIX + "labels": labels}, model=True)
    for key, values in MALFORMED.items():
        for value in values:
            yield contract_input(MODEL | {PREFIX + key: value}, model=True)


def rules() -> Iterator[Rule]:
    """Yield every rule that there is, by its words."""
    distances = ("inner_product", "cosine", "euclidean", "manhattan", "mahalanobis")
    for distance in distances:
        yield Rule("l2", "max", distance)
        yield Rule("none", "mnn", distance, 2)
        if distance != "inner_product":
            yield Rule("l2", "mnn", distance, 3, "distance")


def heads() -> Iterator[bytes]:
    """Yield inputs of fuzz_head."""
    rng = np.random.default_rng(0)
    for rule in rules():
        metric = rng.standard_normal((4, 2)) if rule.distance == "mahalanobis" else None
        head = Head(
            rng.standard_normal((5, 4)),
            [0, 1, 1, 2, 2],
            ["a", "ö", "😀"],
            rule,
            metric=metric,
            notes=(("by", "me"),),
        )
        yield head.to_bytes()
    mapped = Head(
        rng.standard_normal((3, 2)),
        [0, 1, 1],
        ["a", "b"],
        center=rng.standard_normal(4),
        transform=rng.standard_normal((4, 2)),
        threshold=[0.5, 0.25],
        temperature=0.05,
    )
    yield mapped.to_bytes()
    yield teach(mapped, "new", rng.standard_normal((3, 4)), proxies=2).to_bytes()
    yield save({**ARRAYS, "class_index": np.array([2, 0, 1])}, metadata=METADATA)
    for arrays, _ in BAD_ARRAYS.values():
        yield save(arrays, metadata=METADATA)
    yield from NO_HEAD_FILES.values()


def main(folder: Path) -> None:
    """Write both."""
    for name, inputs in (("contract", contracts()), ("head", heads())):
        (folder / name).mkdir(parents=True, exist_ok=True)
        for data in inputs:
            if len(data) <= MAX_BYTES:
                (folder / name / hashlib.sha1(data).hexdigest()).write_bytes(data)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
