# SPDX-License-Identifier: Apache-2.0
"""Runs in a child: which providers ONNX Runtime lists, and whether one of them really runs.

The list is what the build was made with. That a provider's library loads, that a graph's
nodes are given to it and that it computes them rightly is seen only by doing it.
"""

from __future__ import annotations

import time
import warnings
from pathlib import Path
from typing import Any

import numpy as np

from edge_imprint_runtime.doctor import tiny
from edge_imprint_runtime.doctor.child import Tell

__all__ = ["LIBRARIES", "look", "run"]

_RUNS = 20
LIBRARIES = {
    "CUDAExecutionProvider": "libonnxruntime_providers_cuda.so",
    "TensorrtExecutionProvider": "libonnxruntime_providers_tensorrt.so",
}


def look(tell: Tell, _argument: str) -> dict[str, Any]:
    """Import ONNX Runtime; say its version, where it lies, and what it lists."""
    tell("import")
    try:
        import onnxruntime as ort
    except ModuleNotFoundError as error:
        if error.name != "onnxruntime":
            raise
        return {"status": "missing", "reason": "ONNX Runtime is not installed"}
    return {
        "status": "runs",
        "version": str(ort.__version__),
        "path": str(Path(ort.__file__).parent),
        "listed": list(ort.get_available_providers()),
    }


def run(tell: Tell, provider: str) -> dict[str, Any]:
    """Run the tiny model on one provider and on no other.

    Args:
        tell: Told of each stage.
        provider: Its name in the list.
    """
    tell("import")
    import onnxruntime as ort

    library = Path(ort.__file__).parent / "capi" / LIBRARIES.get(provider, "none")
    tell("library", library=library.name if library.exists() else None)
    preload = getattr(ort, "preload_dlls", None)  # from 1.21 on
    if preload is not None and provider in LIBRARIES:
        preload()
    tell("session")
    session = _session(ort, provider)
    got = session.get_providers()
    if got[:1] != [provider]:
        other = got[0] if got else "nothing"
        return {"status": "fails", "reason": f"it did not start, {other} would have run"}
    nodes = _nodes(session)
    tell("placement", nodes=nodes)
    if nodes is not None and not nodes.get(provider):
        others = ", ".join(nodes)
        reason = f"it took none of the tiny model's nodes, {others} would have run them"
        return {"status": "fails", "reason": reason}
    tell("first run")
    begun = time.perf_counter_ns()
    scores = session.run(["scores"], {"images": tiny.images()})[0]
    first_ns = time.perf_counter_ns() - begun
    tell("runs", first_run_ms=round(first_ns / 1e6, 3))
    if not tiny.is_right(scores):
        shown = np.array2string(scores.ravel()[:5], precision=3)
        return {"status": "wrong", "reason": f"it answered {shown} to the tiny model"}
    median_ms = round(_median_ns(session) / 1e6, 4)
    elsewhere = {name: count for name, count in (nodes or {}).items() if name != provider}
    if elsewhere:
        where = ", ".join(f"{count} on {name}" for name, count in elsewhere.items())
        reason = f"of the tiny model's nodes it left {where}"
        return {"status": "partly", "reason": reason, "median_ms": median_ms}
    return {"status": "runs", "median_ms": median_ms}


def _session(ort: Any, provider: str) -> Any:
    options = ort.SessionOptions()
    if hasattr(ort.InferenceSession, "get_provider_graph_assignment_info"):
        options.add_session_config_entry("session.record_ep_graph_assignment_info", "1")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # a provider that is dropped is found out afterwards
        return ort.InferenceSession(
            str(tiny.FILE), options, providers=[provider], enable_fallback=0
        )


def _nodes(session: Any) -> dict[str, int] | None:
    """Count the nodes that each provider got; None where ONNX Runtime can't say."""
    ask = getattr(session, "get_provider_graph_assignment_info", None)
    if ask is None:
        return None
    counts: dict[str, int] = {}
    for part in ask():
        counts[part.ep_name] = counts.get(part.ep_name, 0) + len(part.get_nodes())
    return counts


def _median_ns(session: Any) -> float:
    pixels, times = tiny.images(), []
    for _ in range(_RUNS):
        begun = time.perf_counter_ns()
        session.run(["scores"], {"images": pixels})
        times.append(time.perf_counter_ns() - begun)
    return float(np.median(times))
