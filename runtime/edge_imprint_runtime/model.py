# SPDX-License-Identifier: Apache-2.0
"""A fused model on a device: pixels in, label out, all that is needed from the one file."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any, final

import numpy as np
import numpy.typing as npt
from PIL import Image

from edge_imprint_runtime.backends import BACKENDS, Placement, Runner
from edge_imprint_runtime.batches import run_in_parts
from edge_imprint_runtime.contract import Contract, GraphInfo, Teachable, decode
from edge_imprint_runtime.contract.codec import PREFIX
from edge_imprint_runtime.engine.opening import is_engine, model_file, open_engine
from edge_imprint_runtime.errors import (
    HeadFileError,
    LabelCountError,
    ModelFileError,
    NonFiniteScoresError,
    NotTeachableError,
    OutputMissingError,
    ParameterError,
)
from edge_imprint_runtime.head import Head
from edge_imprint_runtime.intake import Images, Intake, Photo
from edge_imprint_runtime.knowledge import Knowledge, head_beside, knowing
from edge_imprint_runtime.predictions import Prediction, Predictions
from edge_imprint_runtime.teaching import forget, teach

__all__ = ["Model", "Photo", "Prediction", "Predictions", "head_beside", "open_model"]

_OUTPUTS = (("scores", 2, "tensor(float)"), ("label", 1, "tensor(int32)"))
_CALIBRATED = (("known", 1, "tensor(int32)"), ("probability", 2, "tensor(float)"))
_PROXY = (("proxy", 1, "tensor(int32)"),)


@final
class Model:
    """A fused model, ready to run. Made by `open_model`.

    Several threads may use it at once, also while one of them teaches: an answer is that of
    the head before or of the one after, never of both. It holds its backend's memory until
    `close`, or the end of a ``with`` block.

    Args:
        runner: The loaded file.
        where: Its name, for messages; a teachable model's head lies beside it.
        head: What a teachable model is to know; None for its own default.

    Attributes:
        contract: All that the file says of itself.
        provider: The execution provider that runs it, or ``TensorRT``.
        threads: Threads for one operator on the CPU; 0: ONNX Runtime's choice, one a core.
        runner: What runs it.
    """

    def __init__(self, runner: Runner, where: str, *, head: Head | None = None) -> None:
        self.contract: Contract = decode(runner.metadata, model=True, where=where)
        assert self.contract.graph is not None  # decode(model=True) saw to it
        self._graph: GraphInfo = self.contract.graph
        self._intake = Intake(self.contract)
        self.provider = runner.provider
        self.threads = runner.threads
        self.runner, self._where = runner, where
        self._outputs = list(runner.outputs)
        calibrated = self.contract.temperature is not None
        self._answers = _OUTPUTS + (_CALIBRATED if calibrated else ())
        self._answers += _PROXY if "proxy" in self._outputs else ()
        self._check_graph(where)
        self._teaching = threading.Lock()
        self._known = Knowledge(self.contract.labels)
        if self._graph.teachable is not None:
            if head is not None:
                self._known = knowing(head, self.contract, runner, head_beside(where))
            elif self._graph.teachable.form == "input":
                raise HeadFileError(
                    f"{where} takes its classes from a head, and there is no file "
                    f"{head_beside(where)}; copy it from where the model was exported"
                )

    def __repr__(self) -> str:
        """Show what it classifies, and on what it runs."""
        return f"Model({len(self.labels)} classes, {self.provider})"

    def __enter__(self) -> Model:
        """Return the model; the end of the block closes it."""
        return self

    def __exit__(self, *_: object) -> None:
        """Close the model."""
        self.close()

    def close(self) -> None:
        """Give back what the model holds; a use afterwards raises ClosedModelError."""
        self.runner.close()

    @property
    def placement(self) -> Placement | None:
        """Which of ONNX Runtime's providers got which nodes; None where none can say."""
        return self.runner.placement

    @property
    def labels(self) -> tuple[str, ...]:
        """The class names, with those that were taught."""
        return self._known.labels

    @property
    def head(self) -> Head | None:
        """What a teachable model knows; None where that lies in the model alone."""
        return self._known.head

    @property
    def held(self) -> dict[str, Any]:
        """What goes into `runner` beside images; see `Runner.run`."""
        return self._known.held

    @property
    def input_shape(self) -> tuple[int, ...]:
        """Shape of one image, without the batch; 0 for a side of any length."""
        return self._intake.shape

    @property
    def input_dtype(self) -> np.dtype[np.generic]:
        """Type of the input's numbers."""
        return self._intake.dtype

    def prepare(self, photos: Sequence[Photo]) -> npt.NDArray[np.generic]:
        """Make photos ready for the network.

        Args:
            photos: Paths or Pillow images: of any size, but where the model takes camera
                frames, of the size of a frame.

        Returns:
            (N, `*input_shape`) of `input_dtype`: (N, H, W, 3) uint8; (N, 3, H, W) float32
            where the model takes that; or camera frames, uint8.

        Raises:
            InputError: An item is neither a path nor a Pillow image, has not a frame's size,
                or the model takes embeddings.
            UnreadableImageError, BrokenImageError, ImageTooLargeError: A photo can't be read.
        """
        return self._intake.prepare(photos)

    def predict(self, images: Images) -> Predictions:
        """Classify images.

        Args:
            images: A photo (path or Pillow image), a list of photos, or an array of
                `input_dtype`, ``(N, *input_shape)`` or ``input_shape``. A model without
                backbone takes embeddings, as an array only.

        Returns:
            One answer an image.

        Raises:
            InputError: An array has another shape or type, or a list holds no photos.
            ClosedModelError: The model was closed.
            DeviceError, DeviceMemoryError: The device failed, or has not enough memory.
            NonFiniteScoresError: The model answered NaN or infinity.
            UnreadableImageError, BrokenImageError, ImageTooLargeError: A photo can't be read.
        """
        known = self._known  # once: another thread may swap it
        names = [name for name, _, _ in self._answers]
        found = run_in_parts(self.runner, names, self._intake.batch(images), known.held)
        answer: dict[str, Any] = dict(zip(names, found, strict=True))
        if not np.isfinite(answer["scores"]).all():
            raise NonFiniteScoresError(
                "the model answered NaN or infinity; check its input, or export it again"
            )
        if "known" in answer:
            answer["known"] = answer["known"].astype(np.bool_)
        return Predictions(labels=known.labels, **answer)

    def embed(self, images: Images) -> npt.NDArray[np.float32]:
        """Embed images with the model's backbone.

        Args:
            images: As in `predict`.

        Returns:
            (N, D) float32, before normalisation.

        Raises:
            OutputMissingError: The model was exported without this output.
            InputError: An array has another shape or type.
        """
        if self._graph.input == "embedding":
            raise OutputMissingError(
                "the model has no backbone: it takes embeddings, and makes none"
            )
        if "embedding" not in self._outputs:
            raise OutputMissingError(
                "the model has no output 'embedding'; "
                "export it with: edge-imprint export HEAD --out MODEL.onnx --embedding"
            )
        batch, held = self._intake.batch(images), self.held
        return run_in_parts(self.runner, ["embedding"], batch, held)[0]  # type: ignore[return-value]

    def teach(self, label: str, images: Images, *, proxies: int | None = None) -> Head:
        """Add a class, or improve one; see `edge_imprint_runtime.teaching.teach`.

        Photos are embedded one by one, so that what is taught does not depend on which lie
        beside each other. Nothing is written; see `save_head`.

        Args:
            label: The class's name, new or known.
            images: As in `predict`, at least one.
            proxies: Taught proxies of the class at most; None for as many as the model has
                room for.

        Returns:
            What the model knows now.

        Raises:
            NotTeachableError: The model, or its head's recipe, can't be taught.
            HeadFileError: The head is not beside the model.
            ParameterError: There is no room for another class, or so many proxies.
            InputError, EmbeddingError, ContractValueError: As in `teaching.teach`.
            UnreadableImageError, BrokenImageError, ImageTooLargeError: A photo can't be read.
        """
        self.require_head()
        if self._graph.input == "embedding":
            return self.teach_embeddings(label, self._intake.batch(images), proxies=proxies)
        if isinstance(images, np.ndarray):
            one_by_one: Iterable[Any] = self._intake.batch(images)
        elif isinstance(images, (str, os.PathLike, Image.Image)):
            one_by_one = [images]
        else:
            one_by_one = images
        rows = [self.embed(image) for image in one_by_one]
        size = self.contract.embedding_size
        return self.teach_embeddings(
            label, np.concatenate([*rows, np.empty((0, size), np.float32)]), proxies=proxies
        )

    def teach_embeddings(
        self, label: str, embeddings: npt.ArrayLike, *, proxies: int | None = None
    ) -> Head:
        """Teach what `embed` gave, image by image; arguments and errors as in `teach`.

        Args:
            label: The class's name.
            embeddings: (n, D) finite numbers.
            proxies: As in `teach`.

        Returns:
            What the model knows now.
        """
        self.require_head()
        room = self._teachable().taught_proxies
        if proxies is not None and proxies > room:
            raise ParameterError(
                f"the model has room for {room} taught proxies a class, got proxies="
                f"{proxies}; give fewer, or export it again with a higher --taught-proxies"
            )
        count = room if proxies is None else proxies
        return self._change(lambda head: teach(head, label, embeddings, proxies=count))

    def forget(self, label: str) -> Head:
        """Take a class away; see `edge_imprint_runtime.teaching.forget`.

        Returns:
            What the model knows now.

        Raises:
            NotTeachableError: The model can't be taught.
            HeadFileError: The head is not beside the model.
            ParameterError: There is no such class, or it can't be spared.
        """
        return self._change(lambda head: forget(head, label))

    def save_head(self, path: str | os.PathLike[str] | None = None) -> Path:
        """Write what the model knows, atomically.

        Teaching waits meanwhile, so that no older head is written over a newer one.

        Args:
            path: A head file, replaced where it is there; None for the one beside the model,
                which `open_model` reads.

        Returns:
            The path.

        Raises:
            NotTeachableError, HeadFileError: As in `forget`.
            OutputWriteError: It can't be written; what was there still is.
        """
        with self._teaching:
            head = self.require_head()
            return head.save(head_beside(self._where) if path is None else path, force=True)

    def require_head(self) -> Head:
        """Return what the model knows, or say why it can't be taught.

        Returns:
            `head`, which is there.

        Raises:
            NotTeachableError: The model was exported without --teachable.
            HeadFileError: The head is not beside the model.
        """
        self._teachable()
        head = self._known.head
        if head is None:
            raise HeadFileError(
                f"teaching starts from the head beside the model, and there is no file "
                f"{head_beside(self._where)}; copy it from where the model was exported"
            )
        return head

    def _teachable(self) -> Teachable:
        if self._graph.teachable is None:
            raise NotTeachableError(
                f"{self._where} was exported without --teachable, so that its classes can't "
                "change; export it again with it"
            )
        return self._graph.teachable

    def _change(self, change: Callable[[Head], Head]) -> Head:
        with self._teaching:  # one after the other; predict goes on meanwhile
            head = self.require_head()
            changed, limit = change(head), self._teachable().max_classes
            if len(changed.labels) > limit:
                raise ParameterError(
                    f"the model holds {limit} classes and knows {len(head.labels)}; forget "
                    "one, or export it again with a higher --max-classes"
                )
            beside = head_beside(self._where)
            self._known = knowing(changed, self.contract, self.runner, beside)
            return changed

    def _check_graph(self, where: str) -> None:
        """Hold what the graph declares against what the metadata says."""
        for name, rank, want in self._answers:
            if name not in self.runner.outputs:
                raise ModelFileError(f"{where}: the graph has no output {name!r}")
            shape, kind = self.runner.outputs[name]
            if kind != want or len(shape) != rank:
                raise ModelFileError(
                    f"{where}: the graph's output {name!r} is {kind} {list(shape)}, not "
                    f"{want} in {rank} dimensions; export the model again"
                )
        teachable = self._graph.teachable
        if len(self.runner.inputs) != 1 and (teachable is None or teachable.form != "input"):
            raise ModelFileError(f"{where}: the graph must have one input")
        if teachable is None:
            classes = self.runner.outputs["scores"][0][-1]
            if classes != len(self.contract.labels):
                raise LabelCountError(
                    f"{where}: there are {len(self.contract.labels)} labels, "
                    f"but the matrix has {classes} classes; export the model again"
                )
        shape, kind = next(iter(self.runner.inputs.values()))
        self._intake.check(shape, kind, where)


def open_model(
    path: str | os.PathLike[str],
    backend: str = "auto",
    *,
    threads: int = 0,
    cuda_graph: bool = False,
    rebuild: bool = False,
    progress: Callable[[str, int, int], None] | None = None,
) -> Model:
    """Open a fused model, or an engine that was compiled of one.

    Args:
        path: An ONNX file that `edge-imprint export` wrote, or an engine that `edge-imprint
            compile` wrote. Of a teachable model the head file beside it (`head_beside`) says
            what it knows, if there is one.
        backend: ``auto`` (TensorRT for an engine; else CUDA where this ONNX Runtime has it,
            else the CPU), ``cpu``, ``cuda`` or ``tensorrt``: for an ONNX file these are
            ONNX Runtime's providers. The one asked for is the one that runs.
        threads: Threads for one operator on the CPU; 0 lets ONNX Runtime choose.
        cuda_graph: Of an engine, launch its kernels as one recorded graph.
        rebuild: Of an engine that does not fit this machine, compile it again, of the ONNX
            file that its sidecar names.
        progress: Told how far that is: the step, and per cent and 100, or seconds and 0.

    Returns:
        The model.

    Raises:
        ModelFileError: The file is missing, is no ONNX model, or is not of our form.
        UnsafeModelError: It claims what it does not hold, or wants other files.
        HeadFileError: The head beside a teachable model can't be read, or is missing where the
            model has no default.
        HeadMismatchError: It does not fit the model.
        NoContractError, ContractVersionError, ContractKeyError, ContractValueError: Its
            metadata are not what this release reads.
        LabelCountError: Its labels don't match its matrix.
        ProviderError: The provider can't be had.
        EngineFileError: An engine or its sidecar is missing or damaged.
        EngineMismatchError: An engine was built for another GPU, TensorRT or ONNX file.
        DeviceError, DeviceMemoryError: There is no GPU, it failed, or its memory is full.
        MissingPackageError: ONNX Runtime, or for an engine TensorRT, is not installed.
        ParameterError: There is no such backend, or it does not run such a file.
    """
    if backend not in BACKENDS:
        raise ParameterError(f"backend must be one of {', '.join(BACKENDS)}, got {backend!r}")
    if type(threads) is not int or not 0 <= threads <= 1024:
        raise ParameterError(f"threads must be an integer from 0 to 1024, got {threads!r}")
    file = model_file(path)
    runner: Runner
    if is_engine(file):
        if backend not in ("auto", "tensorrt"):
            raise ParameterError(
                f"{file} is an engine, which TensorRT alone runs, got backend={backend!r}; "
                "open the ONNX file it was compiled of"
            )
        runner = open_engine(file, cuda_graph=cuda_graph, rebuild=rebuild, progress=progress)
    else:
        if cuda_graph or rebuild:
            option = "cuda_graph" if cuda_graph else "rebuild"
            raise ParameterError(
                f"{option} is for engines, and {file} is none; make one of it with: "
                "edge-imprint compile"
            )
        from edge_imprint_runtime.backends.ort import OrtRunner

        runner = OrtRunner(file, backend, threads)
    beside = head_beside(file)
    teachable = f"{PREFIX}teachable" in runner.metadata  # beside others it is just a file
    try:
        # A folder or a link that leads nowhere is an error, not a model never taught.
        head = Head.load(beside) if teachable and os.path.lexists(beside) else None
        return Model(runner, str(file), head=head)
    except BaseException:
        runner.close()
        raise
