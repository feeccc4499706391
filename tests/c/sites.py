# SPDX-License-Identifier: Apache-2.0
"""Models of each kind, good and bad, written and opened with the C library."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import onnx
import pytest
from onnx import helper

from edge_imprint_export import fuse
from edge_imprint_export.fuse import fuse_head
from edge_imprint_export.graph import to_bytes
from edge_imprint_runtime import Head
from edge_imprint_runtime.contract import Teachable
from edge_imprint_runtime.knowledge import head_beside
from tests.c.binding import Library, OpenModel
from tests.c.building import Builds

MakeHead = Callable[..., Head]


@dataclass(frozen=True)
class Site:
    """What cases are made of."""

    ei: Library
    build: Path
    builds: Builds
    backbone: bytes
    make_head: MakeHead
    folder: Path
    patch: pytest.MonkeyPatch

    @property
    def file(self) -> Path:
        """Where `fused` writes."""
        return self.folder / "m.onnx"

    def fused(self, head: Head | None = None, **options: Any) -> onnx.ModelProto:
        """Fuse the tiny backbone with a head."""
        options = {"outputs": ("scores", "label", "embedding")} | options
        return fuse(self.backbone, head or self.make_head(), **options)

    def open(self, model: onnx.ModelProto | None = None, **options: Any) -> OpenModel:
        """Write a model and open it."""
        self.file.write_bytes(to_bytes(model or self.fused()))
        return self.ei.open(self.file, **options)

    def teachable(self, head: Head | None = None, **options: Any) -> OpenModel:
        """Open a teachable model, its head beside it."""
        head = head or self.make_head()
        limits = Teachable("default", 4, 3)
        head.save(head_beside(self.file), force=True)
        return self.open(self.fused(self.make_head(), teachable=limits), **options)

    def of_embeddings(self, head: Head | None = None, **options: Any) -> OpenModel:
        """Open a head alone."""
        head = head or self.make_head(backbone=None)
        head.save(head_beside(self.file), force=True)
        return self.open(fuse_head(head, **options))

    def with_metadata(self, key: str, value: str | None) -> OpenModel:
        """Open a model of which a line of metadata is another, or is not there."""
        model = self.fused()
        props = {p.key: p.value for p in model.metadata_props}
        props |= {f"edge_imprint.{key}": value} if value is not None else {}
        if value is None:
            del props[f"edge_imprint.{key}"]
        helper.set_model_props(model, props)
        return self.open(model)

    def beside(self, head: bytes) -> OpenModel:
        """Open a teachable model beside which such a head lies."""
        model = self.teachable()
        model.close()
        head_beside(self.file).write_bytes(head)
        return self.ei.open(self.file)

    def false_ort(self, **environment: str) -> Path:
        """An ONNX Runtime that lies and fails as told."""
        for name, value in {"EI_REAL_ORT": str(self.ei.ort), **environment}.items():
            self.patch.setenv(name, value)
        # A copy: one path is opened once in a process, and keeps what it was told then.
        false = self.folder / "libonnxruntime.so"
        false.write_bytes((self.build / "tests" / "libfailing_ort.so").read_bytes())
        return false
