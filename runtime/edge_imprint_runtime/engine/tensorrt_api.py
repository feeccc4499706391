# SPDX-License-Identifier: Apache-2.0
"""TensorRT's Python module, from 8.5 to 11: the one place that knows how they differ.

Names are looked up by name, numbers of enums are never written: they shifted in 11.
"""

from __future__ import annotations

import os
import re
import threading
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

from edge_imprint_runtime.errors import (
    DeviceError,
    EngineBuildError,
    MissingPackageError,
    UnsupportedOptionError,
)

__all__ = ["Log", "TensorRT", "is_jetson", "load"]

_KEPT_LINES = 200
_JETSON = "/etc/nv_tegra_release"
_ALWAYS_EXPLICIT = 10  # the major version from which on a batch is always explicit
_ALWAYS_SHARED = 10  # likewise for profiles
_STRONG_TYPES = (10, 12)
_HARDWARE_LEVELS = {
    "ampere+": ("AMPERE_PLUS", "8.6"),
    "same_compute_capability": ("SAME_COMPUTE_CAPABILITY", "10.13"),
}


class Log:
    """What TensorRT says, kept.

    Args:
        module: TensorRT.

    Attributes:
        logger: What TensorRT's classes take.
        lines: Severity by name (``ERROR``, ``WARNING``, ...) and text, the newest last; of
            ``INFO`` and ``VERBOSE`` nothing is kept.
    """

    def __init__(self, module: Any) -> None:
        self.lines: list[tuple[str, str]] = []
        lock = threading.Lock()
        lines = self.lines

        class _Logger(module.ILogger):  # type: ignore[misc]  # a class of TensorRT's
            def __init__(self) -> None:
                module.ILogger.__init__(self)

            def log(self, severity: Any, msg: str) -> None:
                name = getattr(severity, "name", str(severity))
                if name in ("INFO", "VERBOSE"):
                    return
                with lock:
                    lines.append((name, msg))
                    del lines[:-_KEPT_LINES]

        self.logger: Any = _Logger()

    def errors(self, most: int = 3) -> str:
        """Return the last errors in one line; warnings where there are none.

        Args:
            most: How many.

        Returns:
            Text of at most some 600 letters; "" where nothing was said.
        """
        for wanted in (("ERROR", "INTERNAL_ERROR"), ("WARNING",)):
            found = [text for severity, text in self.lines if severity in wanted]
            if found:
                return "; ".join(" ".join(text.split())[:300] for text in found[-most:])[:600]
        return ""


@dataclass(frozen=True)
class TensorRT:
    """The module, and what this version of it has.

    Attributes:
        module: ``tensorrt``.
        version: Three or four numbers; pip's packages may leave out the fourth.
    """

    module: Any
    version: tuple[int, ...]

    @property
    def text(self) -> str:
        """The version, such as ``10.3.0.30``."""
        return ".".join(map(str, self.version))

    def find(self, *names: str) -> Any:
        """Look up what may not be there, such as ``find("BuilderFlag", "FP16")``.

        Args:
            names: One after the other, each in what the one before is.

        Returns:
            What is there, or None.
        """
        found = self.module
        for name in names:
            found = getattr(found, name, None)
            if found is None:
                return None
        return found

    def has(self, *names: str) -> bool:
        """Tell whether `find` finds something."""
        return self.find(*names) is not None

    def log(self) -> Log:
        """Make a logger that keeps what it is told."""
        return Log(self.module)

    # Building: what differs from version to version -----------------------------------------

    @property
    def types_strongly(self) -> bool:
        """Whether a network can be held to the types of its graph.

        The flag is older, and NVIDIA's own word is that it is complete from 10.12 on.
        """
        return self.version >= _STRONG_TYPES and self.has(
            "NetworkDefinitionCreationFlag", "STRONGLY_TYPED"
        )

    def builder(self, log: Log) -> Any:
        """Make a builder.

        Raises:
            DeviceError: There is no GPU that TensorRT can use.
        """
        return self._made("Builder", log)

    def runtime(self, log: Log) -> Any:
        """Make a runtime; errors as `builder`'s."""
        return self._made("Runtime", log)

    def _made(self, name: str, log: Log) -> Any:
        try:
            return self.find(name)(log.logger)
        except (
            TypeError,
            RuntimeError,
        ) as error:  # pybind11: "factory function returned nullptr"
            said = log.errors(1) or str(error)
            raise DeviceError(
                f"TensorRT {self.text} can't use a GPU here: {said.rstrip('.')}; look at what "
                "'edge-imprint doctor' says"
            ) from error

    def network(self, builder: Any) -> Any:
        """Make an empty network: strongly typed where that is complete."""
        names = ["EXPLICIT_BATCH"] if self.version[0] < _ALWAYS_EXPLICIT else []
        names += ["STRONGLY_TYPED"] if self.types_strongly else []
        flags = 0
        for name in names:
            flags |= 1 << int(self.find("NetworkDefinitionCreationFlag", name))
        return builder.create_network(flags)

    def parse(self, network: Any, data: bytes, log: Log, where: str) -> None:
        """Fill a network from an ONNX file.

        Args:
            network: Where to.
            data: The file.
            log: What keeps TensorRT's words.
            where: The file's name, for messages.

        Raises:
            EngineBuildError: TensorRT can't read it; the message names the nodes.
        """
        parser = self.module.OnnxParser(network, log.logger)
        if parser.parse(data):
            return
        found = [parser.get_error(i) for i in range(min(parser.num_errors, 3))]
        said = "; ".join(filter(None, map(_parser_error, found))) or log.errors()
        raise EngineBuildError(
            f"TensorRT {self.text} can't read {where}: {said or 'it does not say why'}; "
            "'edge-imprint check' tells what a target refuses"
        )

    def set_flag(self, config: Any, name: str) -> None:
        """Set a builder's flag by name.

        Raises:
            UnsupportedOptionError: This TensorRT has none of that name.
        """
        flag = self.find("BuilderFlag", name)
        if flag is None:
            raise UnsupportedOptionError(
                f"TensorRT {self.text} has no builder flag {name}, which this needs"
            )
        config.set_flag(flag)

    def clear_flag(self, config: Any, name: str) -> None:
        """Clear a builder's flag where there is one of that name."""
        if (flag := self.find("BuilderFlag", name)) is not None:
            config.clear_flag(flag)

    def limit_workspace(self, config: Any, limit_bytes: int) -> None:
        """Limit the memory that kernels may use beside their inputs and outputs."""
        config.set_memory_pool_limit(self.find("MemoryPoolType", "WORKSPACE"), limit_bytes)

    def keep_layer_names(self, config: Any) -> None:
        """Let the engine's inspector tell its layers in detail."""
        config.profiling_verbosity = self.find("ProfilingVerbosity", "DETAILED")

    def use_own_kernels(self, config: Any) -> None:
        """Leave cuBLAS and cuDNN out; TensorRT 11 has done so for good."""
        sources = 0
        for name in ("EDGE_MASK_CONVOLUTIONS", "JIT_CONVOLUTIONS"):
            sources |= 1 << int(self.find("TacticSource", name))
        config.set_tactic_sources(sources)

    def set_optimization_level(self, config: Any, level: int) -> None:
        """Say how long to look for faster kernels.

        Raises:
            UnsupportedOptionError: This TensorRT can't be told.
        """
        if not hasattr(config, "builder_optimization_level"):
            raise self._too_old("an optimisation level", "8.6")
        config.builder_optimization_level = level

    def make_version_compatible(self, config: Any) -> None:
        """Let newer TensorRTs load the engine.

        Raises:
            UnsupportedOptionError: This TensorRT makes no such engines.
        """
        if not self.has("BuilderFlag", "VERSION_COMPATIBLE"):
            raise self._too_old("version-compatible engines", "8.6")
        self.set_flag(config, "VERSION_COMPATIBLE")

    def make_hardware_compatible(self, config: Any, level: str) -> None:
        """Let other GPUs run the engine.

        Args:
            config: The builder's configuration.
            level: ``ampere+`` or ``same_compute_capability``.

        Raises:
            UnsupportedOptionError: This TensorRT makes no such engines.
        """
        name, since = _HARDWARE_LEVELS[level]
        found = self.find("HardwareCompatibilityLevel", name)
        if found is None or not hasattr(config, "hardware_compatibility_level"):
            raise self._too_old(f"engines for other GPUs ({level})", since)
        config.hardware_compatibility_level = found

    def shares_profiles(self, config: Any) -> bool:
        """Let several callers use one profile; returns whether they can (from 8.6 on)."""
        if self.version[0] >= _ALWAYS_SHARED:
            return True
        feature = self.find("PreviewFeature", "PROFILE_SHARING_0806")
        if feature is not None:
            config.set_preview_feature(feature, True)
        return feature is not None

    def make_refittable(self, network: Any, config: Any, names: Iterable[str]) -> list[str]:
        """Let constants be replaced once the engine is built.

        Args:
            network: Filled.
            config: The builder's configuration.
            names: The constants that are to be replaced. Where TensorRT can't single them
                out (before 10), all can be, which costs speed.

        Returns:
            The flags that were set.

        Raises:
            EngineBuildError: TensorRT does not know one of the constants.
        """
        if not self.has("BuilderFlag", "REFIT_INDIVIDUAL"):
            self.set_flag(config, "REFIT")
            return ["REFIT"]
        self.set_flag(config, "REFIT_INDIVIDUAL")
        for name in names:
            if not network.mark_weights_refittable(name):
                raise EngineBuildError(
                    f"TensorRT {self.text} can't make {name!r} replaceable; build the engine "
                    "without refittable"
                )
        return ["REFIT_INDIVIDUAL"]

    def monitor(self, config: Any, tell: Callable[[float], bool]) -> bool:
        """Hear how far a build is.

        Args:
            config: The builder's configuration.
            tell: Given the share that is done, 0 to 1, from TensorRT's own thread; it answers
                whether to go on, and must not raise.

        Returns:
            Whether this TensorRT tells (from 10 on).
        """
        base = self.find("IProgressMonitor")
        if base is None:
            return False
        config.progress_monitor = _monitor(base, tell)
        return True

    def allow_newer_engines(self, runtime: Any) -> None:
        """Let a runtime load version-compatible engines, which hold code for the host."""
        if hasattr(runtime, "engine_host_code_allowed"):
            runtime.engine_host_code_allowed = True

    def _too_old(self, what: str, since: str) -> UnsupportedOptionError:
        return UnsupportedOptionError(
            f"TensorRT {self.text} has no {what}, TensorRT {since} and newer have; leave the "
            "option out"
        )


def _parser_error(error: Any) -> str:
    """Write one of the parser's errors: what, and at which node."""
    text = " ".join(str(error.desc()).split())[:300]
    # The node's name and operator are there from 10.0 on, before only its number.
    name = getattr(error, "node_name", None)
    kind = getattr(error, "node_operator", None)
    if name is not None and kind is not None:
        return f"node {name()!r} ({kind()}): {text}"
    return f"node {error.node()}: {text}"


def _monitor(base: Any, tell: Callable[[float], bool]) -> Any:
    """Make a monitor; a step of a phase may be a phase itself."""

    class _Monitor(base):  # type: ignore[misc]  # a class of TensorRT's
        def __init__(self) -> None:
            base.__init__(self)
            self.phases: dict[str, list[Any]] = {}  # name: [parent, steps done, steps]
            self.reached = 0.0

        def phase_start(
            self, phase_name: str, parent_phase: str | None, num_steps: int
        ) -> None:
            self.phases[phase_name] = [parent_phase, 0, max(1, num_steps)]

        def step_complete(self, phase_name: str, step: int) -> bool:
            if phase_name in self.phases:
                self.phases[phase_name][1] = step + 1
            return tell(self.share(phase_name))

        def phase_finish(self, phase_name: str) -> None:
            self.phases.pop(phase_name, None)

        def share(self, name: str | None) -> float:
            inner = 0.0
            for _ in range(len(self.phases)):
                if name not in self.phases:
                    break
                name, done, steps = self.phases[name]
                inner = min(1.0, (done + inner) / steps)
            self.reached = max(self.reached, inner)  # phases side by side never run it back
            return self.reached

    return _Monitor()


def load(purpose: str = "a TensorRT engine") -> TensorRT:
    """Import TensorRT.

    Args:
        purpose: What needs it, for the message.

    Returns:
        It.

    Raises:
        MissingPackageError: It is not installed.
        DeviceError: It is, and can't be loaded: a library of CUDA's is missing.
    """
    try:
        import tensorrt
    except ModuleNotFoundError as error:
        raise _missing(purpose) from error
    except (ImportError, OSError, RuntimeError) as error:
        text = " ".join(str(error).split())[:300]
        raise DeviceError(
            f"TensorRT is installed and can't be loaded: {text}; look at what "
            "'edge-imprint doctor' says"
        ) from error
    numbers = re.match(r"[0-9]+(\.[0-9]+){2,3}", str(tensorrt.__version__))
    if numbers is None:
        raise DeviceError(
            f"TensorRT says that its version is {tensorrt.__version__!r}; install it again"
        )
    return TensorRT(tensorrt, tuple(int(part) for part in numbers[0].split(".")))


def _missing(purpose: str) -> MissingPackageError:
    missing = MissingPackageError("tensorrt", purpose, "tensorrt")
    if is_jetson():
        missing.msg = (
            f"{purpose} needs the package 'tensorrt', which comes with JetPack and is not "
            "seen here; an environment sees it that was made with: python3 -m venv "
            "--system-site-packages"
        )
    return missing


def is_jetson() -> bool:
    """Tell whether this machine is a Jetson."""
    return os.path.exists(_JETSON)
