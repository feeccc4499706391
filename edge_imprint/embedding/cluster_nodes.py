# SPDX-License-Identifier: Apache-2.0
"""A connection to Ray: to a cluster there is, or to one of this machine alone."""

from __future__ import annotations

import contextlib
import logging
import os
import socket
import subprocess
import sys
import warnings
from collections.abc import Iterator, Mapping
from typing import Any

from edge_imprint.imprinting.proxies import cores
from edge_imprint_runtime.errors import ClusterError, MissingPackageError

__all__ = ["Nodes", "first_line"]

_CONNECT_S = 3.0
_ANSWER_S = 15.0
# Ray's own words go to its log folder; what a user must know is in our errors and notes.
_LOGGERS = ("ray", "ray.data")
# For the processes that this one starts: no figures to Ray's maker, and no word of what will
# change one day.
_SETTINGS = {
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
}


class Nodes:
    """The machines of a Ray cluster, seen from the process that gives them work.

    Where Ray already runs in this process, that is used. Only what was started here is ended
    by `close`: a cluster of an address stays.

    Args:
        address: ``HOST:PORT`` of a cluster's head; ``auto`` for the one that this machine
            belongs to; None for ``RAY_ADDRESS``, else for a cluster of this machine alone.

    Attributes:
        ray: The module.
        context: Ray Data's settings in this process.

    Raises:
        MissingPackageError: Ray is not installed.
        ClusterError: There is no cluster at the address, or Ray does not start.
    """

    def __init__(self, address: str | None = None) -> None:
        try:
            with _environment({"RAY_ENABLE_AUTO_CONNECT": "0"}):  # it would start by itself
                import ray
                import ray.data
        except ImportError as error:
            raise MissingPackageError("ray", "--engine ray", "ray") from error
        self.ray: Any = ray
        self._levels = {name: logging.getLogger(name).level for name in _LOGGERS}
        self._ours = not ray.is_initialized()
        self._printer: Any = None
        for name in _LOGGERS:
            logging.getLogger(name).setLevel(logging.CRITICAL + 1)
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # Ray's, of its own old settings
                self.context: Any = ray.data.DataContext.get_current()
            if self._ours:
                self._connect(address or os.environ.get("RAY_ADDRESS") or "local")
        except BaseException:
            self._restore_loggers()
            raise

    @property
    def cpus(self) -> int:
        """CPUs of all nodes that are alive, at least 1."""
        return max(1, int(self.ray.cluster_resources().get("CPU", 0)))

    @property
    def gpus(self) -> int:
        """GPUs of all nodes that are alive."""
        return int(self.ray.cluster_resources().get("GPU", 0))

    def alive(self) -> frozenset[str]:
        """Return the ids of the nodes that are alive."""
        return frozenset(node["NodeID"] for node in self.ray.nodes() if node["Alive"])

    def close(self) -> None:
        """Leave the cluster; end it, where it was started here."""
        if self._ours and self.ray.is_initialized():
            self.ray.shutdown()
        if self._printer is not None:
            sys.modules["ray._private.worker"].print_to_stdstream = self._printer  # type: ignore[attr-defined]
            self._printer = None
        self._ours = False
        self._restore_loggers()

    def _connect(self, address: str) -> None:
        options: dict[str, Any] = {"log_to_driver": False, "logging_level": logging.CRITICAL}
        if address == "local":
            options |= {"num_cpus": cores(), "include_dashboard": False}
        elif address != "auto":
            _check_address(address)
        try:
            with _settings(alone=address == "local"), warnings.catch_warnings():
                warnings.simplefilter("ignore")  # of what Ray will change one day
                self.ray.init(address=address, **options)
        except (Exception, SystemExit) as error:  # Ray leaves by SystemExit, too
            if address == "local":
                what = f"Ray does not start: {first_line(error)}"
            else:  # what Ray says next is how to call Ray
                what = f"no cluster at {address}: {first_line(error).partition('. ')[0]}"
            raise ClusterError(f"{what}; {_advice(address)}") from error

        # Of a machine that is lost Ray prints its last log lines on stdout, whatever it is
        # told. Private, so looked for: where it has another name, they are printed.
        worker: Any = sys.modules.get("ray._private.worker")
        if hasattr(worker, "print_to_stdstream"):
            self._printer = worker.print_to_stdstream
            worker.print_to_stdstream = _print_nothing

    def _restore_loggers(self) -> None:
        for name, level in self._levels.items():
            logging.getLogger(name).setLevel(level)


def first_line(error: BaseException) -> str:
    """Return the first line of an error that says something; without its final stop."""
    lines = [line.strip() for line in str(error).splitlines()]
    return next((line.rstrip(".") for line in lines if line), type(error).__name__)


def _check_address(address: str) -> None:
    """Refuse an address where no cluster answers, in seconds; Ray itself takes a minute.

    Raises:
        ClusterError: Nobody listens, or it is no cluster of Ray's.
    """
    if "://" in address:
        raise ClusterError(
            f"the address {address} is a client's: run the build on a machine of the cluster "
            "with --ray-address auto, or give its head as HOST:PORT"
        )
    host, _, port = address.rpartition(":")
    if not host or not port.isdecimal() or not 0 < int(port) < 65536:
        raise ClusterError(f"{address!r} is no address of a cluster; {_advice(address)}")
    try:
        socket.create_connection((host.strip("[]"), int(port)), _CONNECT_S).close()
    except OSError as error:
        reason = error.strerror or str(error)
        raise ClusterError(
            f"cannot reach a Ray cluster at {address}: {reason}; {_advice(address)}"
        ) from error
    # Something listens there. A process of its own asks whether it is Ray, since Ray's client
    # waits long for an answer, and ends the process that waits.
    command = [sys.executable, "-m", "ray.scripts.scripts", "health-check"]
    try:
        subprocess.run(
            [*command, "--address", address],
            capture_output=True,
            check=True,
            timeout=_ANSWER_S,
        )
    except (OSError, subprocess.SubprocessError) as error:
        raise ClusterError(
            f"what listens at {address} is no Ray cluster of this Ray's version, or does not "
            f"answer; {_advice(address)}"
        ) from error


def _advice(address: str) -> str:
    if address == "local":
        return "look into Ray's logs, or build with --engine local"
    return (
        "give HOST:PORT of its head, auto on one of its machines, or leave --ray-address out"
    )


@contextlib.contextmanager
def _settings(*, alone: bool) -> Iterator[None]:
    """Give Ray settings as it starts, where its owner has set none in the environment.

    In a cluster Ray's C++ part writes on stderr when it makes anew what was lost, unless it is
    told to be silent as it starts; and says then that it was told.
    """
    wanted = dict(_SETTINGS) if alone else _SETTINGS | {"RAY_BACKEND_LOG_LEVEL": "fatal"}
    with _environment(wanted), contextlib.nullcontext() if alone else _stderr_aside():
        yield


@contextlib.contextmanager
def _environment(wanted: Mapping[str, str]) -> Iterator[None]:
    new = [name for name in wanted if name not in os.environ]
    os.environ.update({name: wanted[name] for name in new})
    try:
        yield
    finally:
        for name in new:
            os.environ.pop(name, None)


@contextlib.contextmanager
def _stderr_aside() -> Iterator[None]:
    """Let what is written on this process's stderr by any library go nowhere, for a while."""
    sys.stderr.flush()
    kept, nowhere = os.dup(2), os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 2)
    try:
        yield
    finally:
        sys.stderr.flush()
        os.dup2(kept, 2)
        os.close(kept)
        os.close(nowhere)


def _print_nothing(*_: Any, **__: Any) -> None:
    """Stand in for what prints Ray's messages."""
