# SPDX-License-Identifier: Apache-2.0
"""TensorRT's part of a build: from a model's bytes to a plan's."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from edge_imprint_runtime.backends.cuda_calls import Cuda
from edge_imprint_runtime.engine.answers import memory_or
from edge_imprint_runtime.engine.options import Options
from edge_imprint_runtime.engine.precision import set_precision
from edge_imprint_runtime.engine.shapes import Range
from edge_imprint_runtime.engine.source import Source
from edge_imprint_runtime.engine.tensorrt_api import Log, TensorRT
from edge_imprint_runtime.engine.timing import TimingCache
from edge_imprint_runtime.engine.waiting import Progress, Watch
from edge_imprint_runtime.errors import EngineBuildError

__all__ = ["Plan", "make_plan"]


@dataclass(frozen=True)
class Plan:
    """What TensorRT built.

    Attributes:
        data: The engine's bytes.
        flags: The builder flags that were set, by name.
        build_s: How long it took, seconds.
    """

    data: bytes
    flags: tuple[str, ...]
    build_s: float


def make_plan(
    api: TensorRT,
    source: Source,
    profile: Mapping[str, Range],
    options: Options,
    cache: TimingCache,
    progress: Progress | None,
) -> Plan:
    """Build an engine.

    Args:
        api: TensorRT.
        source: The model.
        profile: Least, usual and greatest shape by input.
        options: What is asked for.
        cache: Timings to use and to add to.
        progress: See `Watch`.

    Returns:
        The engine.

    Raises:
        UnsupportedOptionError: This TensorRT has not what an option asks for.
        DeviceError, DeviceMemoryError: There is no GPU, or not enough of its memory.
        EngineBuildError: TensorRT can't read the model or build an engine.
        EngineFileError: The timings are none of ours.
    """
    log = api.log()
    builder = api.builder(log)
    config = builder.create_builder_config()
    # Before the parser's work: what this TensorRT lacks is said at once.
    flags = _set_options(api, config, options)
    network = api.network(builder)
    api.parse(network, source.data, log, source.where)
    flags += set_precision(api, network, config, source.facts)
    if options.refittable:
        flags += api.make_refittable(network, config, source.facts.head_tensors())
    count = 1 if api.shares_profiles(config) else options.contexts
    _set_profile(builder, network, config, profile, log, source, count)
    cache.attach(config)
    watch = Watch(progress)
    api.monitor(config, watch.hear)
    cuda = Cuda()
    device = cuda.call("cudaGetDevice")

    def build() -> Any:
        with cuda.on(device):  # a new thread begins on the first GPU
            return builder.build_serialized_network(network, config)

    started = time.monotonic()
    serialized = watch.run(build)
    build_s = time.monotonic() - started
    if serialized is None:
        raise memory_or(EngineBuildError, api, log, f"can't build an engine of {source.where}")
    cache.save(config)
    return Plan(bytes(serialized), tuple(sorted(flags)), build_s)


def _set_options(api: TensorRT, config: Any, options: Options) -> list[str]:
    """Apply what does not depend on the model; returns the flags that were set."""
    flags = []
    if options.version_compatible:
        api.make_version_compatible(config)
        flags.append("VERSION_COMPATIBLE")
    if options.hardware_compatible != "none":
        api.make_hardware_compatible(config, options.hardware_compatible)
    if options.optimization_level is not None:
        api.set_optimization_level(config, options.optimization_level)
    if options.workspace_bytes is not None:
        api.limit_workspace(config, options.workspace_bytes)
    if options.own_kernels:
        api.use_own_kernels(config)
    api.keep_layer_names(config)
    return flags


def _set_profile(
    builder: Any,
    network: Any,
    config: Any,
    profile: Mapping[str, Range],
    log: Log,
    source: Source,
    count: int,
) -> None:
    names = {network.get_input(i).name for i in range(network.num_inputs)}
    if names != profile.keys():
        odd = min(names ^ profile.keys())
        raise EngineBuildError(
            f"TensorRT reads other inputs of {source.where} than the file declares ({odd!r}); "
            "export it again"
        )
    growing = {name: shapes for name, shapes in profile.items() if shapes[0] != shapes[2]}
    dynamic = {
        network.get_input(i).name
        for i in range(network.num_inputs)
        if -1 in tuple(network.get_input(i).shape)
    }
    wanted = dynamic | growing.keys()
    if not wanted:
        return
    for _ in range(count):
        made = builder.create_optimization_profile()
        for name in profile:
            if name in wanted:
                made.set_shape(name, *profile[name])
        if config.add_optimization_profile(made) < 0:
            raise EngineBuildError(
                f"TensorRT does not take the shapes asked for of {source.where}: "
                f"{log.errors()}"
            )
