# SPDX-License-Identifier: Apache-2.0
"""Workers of a cluster that embed: started, fed, replaced where their machine is lost.

Ray restarts a lost actor only where there is room for it, and its tasks wait meanwhile: in a
cluster that has become smaller, for ever. So what a lost worker had in hand goes to another.
"""

from __future__ import annotations

import contextlib
import queue
import threading
import time
from collections import deque
from collections.abc import Callable, Container, Iterable, Iterator
from dataclasses import dataclass
from typing import Any

from edge_imprint.embedding.cluster_nodes import Nodes, first_line
from edge_imprint.embedding.cluster_tasks import Read
from edge_imprint_runtime.errors import ClusterError, EdgeImprintError

__all__ = ["Pool", "Pulled"]

_WAIT_S = 0.5  # for an answer, before looking around
_START_S = 120.0  # for the first worker
_MORE_S = 20.0  # for the others, once there is one
_CLOSE_S = 10.0  # for Ray Data to end what it began
_LOOK_S = 2.0  # between two looks at how many workers there can be
_IN_HAND = 2  # tables a worker has: the next is there when one is done
_TRIES = 3  # how often a table may take its worker with it


@dataclass
class _Table:
    ref: Any
    tries: int = 0


class Pulled:
    """Pulls from an iterator in a thread of its own, so that nobody waits for it for ever.

    Args:
        items: What to pull from; used and let go by the thread alone.
        limit: How many may lie ready.
    """

    def __init__(self, items: Callable[[], Iterable[Any]], limit: int) -> None:
        self._queue: queue.Queue[tuple[str, Any]] = queue.Queue(limit)
        self._stop = threading.Event()
        self.ended = False
        self._thread = threading.Thread(target=self._pull, args=(items,), daemon=True)
        self._thread.start()

    def next(self, wait_s: float) -> Any | None:
        """Return the next; None where there is none yet, or none any more (``ended``).

        Raises:
            Exception: What the iterator raised.
        """
        if self.ended:
            return None
        try:
            kind, item = self._queue.get(timeout=wait_s) if wait_s else self._queue.get(False)
        except queue.Empty:
            return None
        if kind == "item":
            return item
        self.ended = True
        if kind == "error":
            raise item
        return None

    def close(self) -> None:
        """Pull no more, and wait until the iterator is let go; not for ever, if it hangs."""
        self._stop.set()
        self.ended = True
        self._thread.join(_CLOSE_S)

    def _pull(self, items: Callable[[], Iterable[Any]]) -> None:
        try:
            for item in items():
                if not self._put("item", item):
                    return
        except Exception as error:
            self._put("error", error)
        else:
            self._put("end", None)

    def _put(self, kind: str, item: Any) -> bool:
        while not self._stop.is_set():
            try:
                self._queue.put((kind, item), timeout=_WAIT_S)
                return True
            except queue.Full:
                continue
        return False


class Pool:
    """Actors that embed.

    Args:
        nodes: The cluster.
        spawn: Starts an actor with the methods ``ready``, ``embed`` and ``notes``.
        size: Tells how many there shall be. Asked now and then: machines go, and come.

    Attributes:
        size: How many there were to be at first.
        lost: The machines whose workers ended with photos in hand.
    """

    def __init__(
        self, nodes: Nodes, spawn: Callable[[], Any], size: Callable[[], int]
    ) -> None:
        self._nodes, self._ray, self._spawn, self._target = nodes, nodes.ray, spawn, size
        self._starting: dict[Any, Any] = {}  # its first answer -> actor
        self._load: dict[Any, int] = {}  # actor that is ready -> tables in its hand
        self._work: dict[Any, tuple[Any, _Table]] = {}  # answer -> actor, table
        self._home: dict[Any, str] = {}  # actor -> its machine
        self._again: deque[_Table] = deque()
        self.lost = set[str]()
        self._fallen = 0  # workers that were lost before they were ready
        self._looked = -_LOOK_S
        self.size = size()
        self._fill()

    def notes(self) -> set[str]:
        """Return what a user should know of what the workers did, each a sentence."""
        said = set[str]()
        for answer in [actor.notes.remote() for actor in self._load]:
            with contextlib.suppress(self._ray.exceptions.RayError):  # just lost
                said.update(self._ray.get(answer))
        return said

    def wait(self) -> None:
        """Wait until the workers are ready, or some are and the others take long.

        Tables are made in what room the workers leave: so the workers come first.

        Raises:
            ClusterError: None could be started.
        """
        begun, first = time.monotonic(), None
        while self._starting or not self._load:
            self._fill()
            self._collect_started(_WAIT_S)
            now = time.monotonic()
            if self._load and first is None:
                first = now
            if first is not None and now - first > _MORE_S:
                return
            if first is None and now - begun > _START_S:
                raise ClusterError(
                    f"no worker could be started in {_START_S:.0f} s: the cluster has "
                    f"{self._nodes.cpus} CPUs and {self._nodes.gpus} GPUs, others may use "
                    "them; free some, or build with --engine local"
                )

    def run(self, tables: Pulled) -> Iterator[Read]:
        """Embed tables as they come; give what was embedded as it comes.

        A table that takes its worker with it three times, or is lost with its machine and
        can't be made again, is left out.

        Raises:
            EdgeImprintError: What a worker raised.
            ClusterError: The cluster fails.
        """
        while True:
            self._fill()
            self._feed(tables)
            if not self._work:
                if tables.ended and not self._again:
                    return
                if not self._load:
                    self.wait()
                elif not self._again and (ref := tables.next(_WAIT_S)) is not None:
                    self._again.append(_Table(ref))
                continue
            done, _ = self._ray.wait(list(self._work), timeout=_WAIT_S)
            self._collect_started(0)
            for answer in done:
                found = self._collect(answer)
                if found is not None:
                    yield found

    def close(self) -> None:
        """End the workers."""
        for actor in [*self._load, *self._starting.values()]:
            self._ray.kill(actor)
        self._load, self._starting, self._work = {}, {}, {}

    def _feed(self, tables: Pulled) -> None:
        while free := [actor for actor, load in self._load.items() if load < _IN_HAND]:
            if self._again:
                table = self._again.popleft()
            elif (ref := tables.next(0)) is not None:
                table = _Table(ref)
            else:
                return
            near = self._near(table.ref)
            actor = min(free, key=lambda one: (self._home[one] not in near, self._load[one]))
            self._work[actor.embed.remote(table.ref)] = actor, table
            self._load[actor] += 1

    def _near(self, ref: Any) -> Container[str]:
        """Return the machines that hold a table, so that it need not travel."""
        if len(set(self._home.values())) < 2:
            return ()
        found = self._ray.experimental.get_object_locations([ref])
        return set(found[ref].get("node_ids", ()))

    def _collect(self, answer: Any) -> Read | None:
        actor, table = self._work.pop(answer)
        if actor in self._load:
            self._load[actor] -= 1
        errors = self._ray.exceptions
        try:
            found: Read = self._ray.get(answer)
            return found
        except errors.RayActorError:
            self._load.pop(actor, None)
            self.lost.add(self._home[actor])
        except errors.RayTaskError as error:
            raise cause_of(error, "embedding") from error
        except errors.RayError:
            pass  # its machine is gone, or the table's; what can be made again will be
        table.tries += 1
        if table.tries < _TRIES:
            self._again.append(table)
        return None

    def _fill(self) -> None:
        """Start workers where there is room for more.

        Not one for each that was lost: on the machines that are left they would take the
        room of the tasks that decode for them.
        """
        now = time.monotonic()
        if now - self._looked < _LOOK_S:
            return
        self._looked = now
        for _ in range(self._target() - len(self._load) - len(self._starting)):
            actor = self._spawn()
            self._starting[actor.ready.remote()] = actor

    def _collect_started(self, wait_s: float) -> None:
        if not self._starting:
            time.sleep(wait_s)
            return
        done, _ = self._ray.wait(
            list(self._starting), num_returns=len(self._starting), timeout=wait_s
        )
        for answer in done:
            actor = self._starting.pop(answer)
            try:
                home: str = self._ray.get(answer)
            except self._ray.exceptions.RayTaskError as error:
                raise cause_of(error, "loading the backbone") from error
            except self._ray.exceptions.RayError as error:
                self._fallen += 1
                if self._fallen > _TRIES * self.size:
                    raise ClusterError(
                        f"the workers of the cluster end as they start: {first_line(error)}; "
                        "install this version of edge-imprint on each machine"
                    ) from error
            else:
                self._load[actor], self._home[actor] = 0, home


def cause_of(error: Exception, doing: str) -> EdgeImprintError:
    """Return what a worker raised, as our error; any other as a `ClusterError`."""
    cause = getattr(error, "cause", None)
    if isinstance(cause, EdgeImprintError):
        return cause
    return ClusterError(
        f"{doing} failed on a machine of the cluster: {first_line(cause or error)}; "
        "look into its logs, or build with --engine local"
    )
