# SPDX-License-Identifier: Apache-2.0
"""Every way in which edge-imprint refuses, one class per cause.

A message is one sentence that says what was wrong, where, and what to do. The command line
prints it without a traceback and exits with the class's ``exit_code``: 1 for a failure,
2 for a wrong use.
"""

from __future__ import annotations

__all__ = [
    "AgreementError",
    "BackboneExportError",
    "BackboneMismatchError",
    "BackboneNotFoundError",
    "BrokenImageError",
    "CacheError",
    "ClosedModelError",
    "ClusterError",
    "ContractKeyError",
    "ContractValueError",
    "ContractVersionError",
    "DeviceError",
    "DeviceMemoryError",
    "EdgeImprintError",
    "EmbeddingError",
    "EngineBuildError",
    "EngineFileError",
    "EngineMismatchError",
    "HeadFileError",
    "HeadMismatchError",
    "HeadValueError",
    "ImageTooLargeError",
    "InputError",
    "LabelCountError",
    "ManifestError",
    "MissingPackageError",
    "ModelFileError",
    "NoContractError",
    "NoImagesError",
    "NonFiniteScoresError",
    "NotCalibratedError",
    "NotTeachableError",
    "NothingRunsError",
    "OutputExistsError",
    "OutputMissingError",
    "OutputWriteError",
    "ParameterError",
    "ProviderError",
    "RemoteError",
    "ReportFileError",
    "ReportVersionError",
    "ShardError",
    "SlowerError",
    "TargetError",
    "TooFewClassesError",
    "TooFewImagesError",
    "TooManyBrokenError",
    "UnreadableImageError",
    "UnsafeModelError",
    "UnstableReportError",
    "UnsupportedOptionError",
    "VerificationError",
    "WeightsError",
]


class EdgeImprintError(Exception):
    """Base of all errors that edge-imprint raises on purpose."""

    exit_code = 1


# Wrong use ---------------------------------------------------------------------------------


class ParameterError(EdgeImprintError, ValueError):
    """A parameter is outside its stated range."""

    exit_code = 2


class UnsupportedOptionError(EdgeImprintError, NotImplementedError):
    """A known option whose value this release does not carry out."""

    exit_code = 2


class MissingPackageError(EdgeImprintError, ImportError):
    """A feature needs a package that is not installed."""

    def __init__(self, package: str, purpose: str, extra: str) -> None:
        super().__init__(
            f"{purpose} needs the package '{package}', which is not installed here; "
            f"run: pip install 'edge-imprint[{extra}]'"
        )


# The contract: metadata of a model or a head -----------------------------------------------


class NoContractError(EdgeImprintError):
    """The file carries no edge-imprint metadata at all."""


class ContractVersionError(EdgeImprintError):
    """The metadata is of a version that this release does not know."""


class ContractKeyError(EdgeImprintError):
    """A metadata key is missing, or is not one of the contract's."""


class ContractValueError(EdgeImprintError):
    """A metadata value is malformed or above its limit."""


class LabelCountError(EdgeImprintError):
    """The number of labels is not the number of classes in the matrix."""


class HeadFileError(EdgeImprintError):
    """A head file can't be read as one."""


class HeadValueError(EdgeImprintError, ValueError):
    """The arrays of a head contradict each other or hold NaN or infinity."""


# Photos ------------------------------------------------------------------------------------


class UnreadableImageError(EdgeImprintError):
    """An image file is missing or may not be read."""


class BrokenImageError(EdgeImprintError):
    """An image file is corrupt, truncated, empty, or no image."""


class ImageTooLargeError(EdgeImprintError):
    """An image has more pixels than the limit (a decompression bomb)."""


class NoImagesError(EdgeImprintError):
    """The given data are missing or hold no images."""


class TooFewClassesError(EdgeImprintError, ValueError):
    """Fewer than two classes."""


class TooFewImagesError(EdgeImprintError, ValueError):
    """Too few images to hold any out."""


class TooManyBrokenError(EdgeImprintError):
    """More images are broken than the stated share."""


class ManifestError(EdgeImprintError):
    """A manifest (CSV, Parquet) can't be read, or contradicts itself."""


class ShardError(EdgeImprintError):
    """A tar shard can't be read as one."""


class RemoteError(EdgeImprintError):
    """An object store can't be reached, or has not what was asked of it."""


# Embedding at scale ------------------------------------------------------------------------


class CacheError(EdgeImprintError):
    """The cache can't be read or changed, where that is what was asked for."""


class ClusterError(EdgeImprintError):
    """A Ray cluster can't be reached or started, or it fails."""


# Backbones ---------------------------------------------------------------------------------


class BackboneNotFoundError(EdgeImprintError):
    """No backbone has this name."""

    exit_code = 2


class WeightsError(EdgeImprintError):
    """Weights can't be had, can't be read, or don't fit the backbone."""


class BackboneExportError(EdgeImprintError):
    """A backbone can't be written as, or read from, an ONNX graph of one input."""


class BackboneMismatchError(EdgeImprintError):
    """A head was made with another backbone than the one at hand."""


class EmbeddingError(EdgeImprintError):
    """An embedding is NaN, infinite or zero."""


# Files to write ----------------------------------------------------------------------------


class OutputExistsError(EdgeImprintError):
    """The file to write is there already, and overwriting was not asked for."""


class OutputWriteError(EdgeImprintError):
    """The file can't be written: a folder in its place, no permission, no space."""


# Running a model ---------------------------------------------------------------------------


class ModelFileError(EdgeImprintError):
    """A model file is missing or is not an ONNX model that can be loaded."""


class UnsafeModelError(EdgeImprintError):
    """An ONNX file reaches outside its folder, or claims what it does not hold."""


class ProviderError(EdgeImprintError):
    """The execution provider asked for is not the one that would run."""


class InputError(EdgeImprintError, ValueError):
    """What was given to a model has the wrong type, shape or range."""


class OutputMissingError(EdgeImprintError):
    """The model was exported without the output asked for."""


class NotCalibratedError(EdgeImprintError):
    """Probabilities or unknowns are asked of a head that was not calibrated."""


class NotTeachableError(EdgeImprintError):
    """A class is to be taught to a model or a head that can't learn one."""


class HeadMismatchError(EdgeImprintError):
    """The head beside a teachable model does not fit that model."""


class ClosedModelError(EdgeImprintError):
    """A model is used after it was closed."""


class NonFiniteScoresError(EdgeImprintError):
    """The model answered NaN or infinity."""


class AgreementError(EdgeImprintError):
    """An exported model agrees with its float32 original less than was asked for."""


class TargetError(EdgeImprintError):
    """A target does not take a model, or would compute it wrongly."""


class VerificationError(EdgeImprintError):
    """A fused model does not decide as its head does."""


# Engines and devices -----------------------------------------------------------------------


class EngineFileError(EdgeImprintError):
    """An engine, or the sidecar beside it, is missing, damaged, or not of our form."""


class EngineMismatchError(EdgeImprintError):
    """An engine was built for another GPU, another TensorRT or another ONNX file."""


class EngineBuildError(EdgeImprintError):
    """TensorRT can't read a model, or can't build an engine of it."""


class DeviceError(EdgeImprintError):
    """A call to CUDA or TensorRT failed, or there is no GPU that they can use."""


class DeviceMemoryError(DeviceError):
    """The device has not enough free memory."""


class NothingRunsError(EdgeImprintError):
    """No backend of this machine runs even a tiny model."""


# Reports -----------------------------------------------------------------------------------


class ReportFileError(EdgeImprintError):
    """A report can't be read, or is none."""


class ReportVersionError(EdgeImprintError):
    """A report is of a schema that this release does not know."""


class UnstableReportError(EdgeImprintError):
    """A run that judged itself unstable is to be compared."""


class SlowerError(EdgeImprintError):
    """A run is slower than another by more than was allowed."""
