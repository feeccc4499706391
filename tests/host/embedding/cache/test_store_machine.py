# SPDX-License-Identifier: Apache-2.0
"""Any order of what builds, kills and bad disks do: a store gives the right row, or none."""

from __future__ import annotations

import shutil
import tempfile
from hashlib import sha256
from pathlib import Path
from unittest import mock

import numpy as np
import numpy.typing as npt
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, rule

from edge_imprint.embedding.cache import EmbeddingStore, Space, disk, store
from edge_imprint_runtime.contract import BackboneInfo, Preprocess
from edge_imprint_runtime.errors import CacheError

PHOTOS = 40
KEYS = np.frombuffer(
    b"".join(sha256(str(i).encode()).digest() for i in range(PHOTOS)), np.uint8
).reshape(PHOTOS, 32)
ROWS = np.random.default_rng(0).standard_normal((PHOTOS, 3)).astype(np.float32)
SPACE = Space(
    BackboneInfo("demo", "packaged", "ab" * 32, Preprocess(8, 8)), "cpu fp32", "quick"
)

which = st.integers(0, 1)
some = st.lists(st.integers(0, PHOTOS - 1), min_size=1, max_size=12, unique=True)


class Builds(RuleBasedStateMachine):
    """Two stores of one folder, and what each of them must hold."""

    def __init__(self) -> None:
        super().__init__()
        self.folder = Path(tempfile.mkdtemp())
        # Small, so that ten photos are written, merged and lost as a million would be.
        self.patches = [
            mock.patch.object(disk, "ROWS", 5),
            mock.patch.object(store, "ROWS", 5),
            mock.patch.object(disk, "_SMALL", 3),
        ]
        for patch in self.patches:
            patch.start()
        self.stores = [self.opened(), self.opened()]
        self.must = [set[int](), set[int]()]  # what each holds for sure
        self.written = set[int]()  # what the folder holds for sure

    def opened(self) -> EmbeddingStore:
        return EmbeddingStore(SPACE, folder=self.folder)

    def held(self, n: int) -> npt.NDArray[np.int64]:
        return np.flatnonzero(self.stores[n].holds(KEYS))

    @rule(n=which, photos=some)
    def add(self, n: int, photos: list[int]) -> None:
        self.stores[n].add([KEYS[i].tobytes() for i in photos], ROWS[photos])
        self.must[n] |= set(photos)

    @rule(n=which)
    def flush(self, n: int) -> None:
        self.stores[n].flush()
        self.written |= self.must[n]

    @rule(n=which)
    def hold(self, n: int) -> None:
        assert set(self.held(n).tolist()) >= self.must[n]
        self.written |= self.must[n]  # what was added was written before it was looked up

    @rule(n=which, photos=some)
    def read(self, n: int, photos: list[int]) -> None:
        wanted = [i for i in photos if i in self.must[n]]
        if not wanted:
            return
        np.testing.assert_array_equal(self.stores[n].read(KEYS[wanted]), ROWS[wanted])
        self.written |= self.must[n]

    @rule(n=which)
    def read_all_that_is_held(self, n: int) -> None:
        held = self.held(n)
        if not len(held):
            return
        np.testing.assert_array_equal(self.stores[n].read(KEYS[held]), ROWS[held])
        self.written |= self.must[n]

    @rule(n=which)
    def killed_and_started_again(self, n: int) -> None:
        self.stores[n] = self.opened()
        self.must[n] = set(self.written)

    @rule(n=which)
    def ended_and_started_again(self, n: int) -> None:
        self.stores[n].close()
        self.written |= self.must[n]
        self.stores[n] = self.opened()
        self.must[n] = set(self.written)

    @rule(data=st.data(), cut=st.booleans())
    def damage(self, data: st.DataObject, cut: bool) -> None:
        shards = sorted(self.folder.rglob("*.shard"))
        if not shards:
            return
        path = shards[data.draw(st.integers(0, len(shards) - 1))]
        whole = bytearray(path.read_bytes())
        position = data.draw(st.integers(0, len(whole) - 1))
        whole[position] ^= 1
        # A new file of the same name: what a disk does to a file, but not under a map.
        path.unlink()
        path.write_bytes(whole[:position] if cut else whole)
        self.forget()

    @rule()
    def clear(self) -> None:
        shutil.rmtree(self.folder / SPACE.key, ignore_errors=True)
        self.forget()

    def forget(self) -> None:
        self.written = set()
        for n in range(2):
            self.must[n] = set()
            # What a store has checked it does not check again: it starts again.
            try:
                held = self.held(n)
                rows = self.stores[n].read(KEYS[held])
            except CacheError:
                pass
            else:
                assert rows.shape == (len(held), self.stores[n].embedding_size or 0)
            self.stores[n] = self.opened()

    def teardown(self) -> None:
        for patch in self.patches:
            patch.stop()
        shutil.rmtree(self.folder, ignore_errors=True)


Builds.TestCase.settings = settings(max_examples=60, stateful_step_count=30, deadline=None)
TestBuilds = Builds.TestCase
