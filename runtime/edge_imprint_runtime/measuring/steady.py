# SPDX-License-Identifier: Apache-2.0
"""When a warm-up is over: when the later half of it shows neither a slope nor a step."""

from __future__ import annotations

from array import array

import numpy as np
import numpy.typing as npt

from edge_imprint_runtime.errors import ParameterError
from edge_imprint_runtime.measuring.shifts import find_drift, find_level_shifts

__all__ = ["WarmUp"]

# Stricter than what a run is judged by: what is left of a warm-up falls into the run.
_DRIFT_PERCENT = 2.0
_SHIFT_PERCENT = 3.0
_TAIL_PERCENT = 20.0
_ALPHA = 0.05
# So large a change from the first to the last third needs no proof: few samples have none.
_GROSS_PERCENT = 25.0
# It is looked at whenever there are so many times more samples, and must show nothing twice:
# what has just begun to move is seen the second time.
_GROWTH = 1.15
_LOOKS = 2
# What is so short that the least time takes more calls than this is as warm as it gets.
_ENOUGH_SAMPLES = 50_000


class WarmUp:
    """Told the samples of a warm-up one after another, says when it is over.

    ::

        while not warm_up.over:
            warm_up.add(nanoseconds of one run)

    Its time is that of its samples: what runs in between does not count.

    Args:
        min_samples: It is not over before so many.
        min_s: Nor before so many seconds of them: clocks rise within tenths of a second,
            however short a run is. 50,000 samples do instead.
        max_s: It is over after so many, steady or not.
        max_samples: And after so many samples: bounds memory.
        callers: Callers at a time, where several feed it: so many samples pass at once.

    Attributes:
        over: No further samples are wanted: it is steady, or a limit is reached.
        steady: Whether it became steady.

    Raises:
        ParameterError: The limits leave no room.
    """

    def __init__(
        self,
        *,
        min_samples: int = 24,
        min_s: float = 0.5,
        max_s: float = 30.0,
        max_samples: int = 2_000_000,
        callers: int = 1,
    ) -> None:
        if not (1 <= min_samples <= max_samples and 0 <= min_s <= max_s < float("inf")):
            raise ParameterError(
                f"a warm-up of {min_samples} to {max_samples} samples and {min_s} to {max_s} "
                "s has no room; give a least of at least 1 sample, and limits above the least"
            )
        self.over = False
        self.steady = False
        self._samples = array("q")
        self._total_ns = 0
        self._least = min_samples
        self._least_ns = int(min_s * callers * 1e9)
        self._most = max_samples
        self._most_ns = int(max_s * callers * 1e9)
        self._next_look = min_samples
        self._quiet = 0

    def add(self, sample_ns: int) -> None:
        """Take the next sample, in nanoseconds."""
        self._samples.append(sample_ns)
        self._total_ns += sample_ns
        count = len(self._samples)
        out = self._total_ns >= self._most_ns or count >= self._most
        if out or (
            count >= self._next_look
            and (self._total_ns >= self._least_ns or count >= _ENOUGH_SAMPLES)
        ):
            self._look(count, last=out)
            self.over = self.steady or out

    def _look(self, count: int, last: bool) -> None:
        self._next_look = max(count + 1, int(count * _GROWTH))
        self._quiet = self._quiet + 1 if _is_quiet(self.samples_ns[count // 2 :]) else 0
        # Where the time is up, there is no second look.
        self.steady = count >= self._least and self._quiet >= (1 if last else _LOOKS)

    @property
    def samples_ns(self) -> npt.NDArray[np.int64]:
        """All samples so far, (W,) int64 nanoseconds."""
        return np.array(self._samples, np.int64)


def _is_quiet(samples_ns: npt.NDArray[np.int64]) -> bool:
    third = max(1, len(samples_ns) // 3)
    first, last = (
        float(np.median(part)) for part in (samples_ns[:third], samples_ns[-third:])
    )
    if abs(last - first) > first * _GROSS_PERCENT / 100:
        return False
    if find_drift(samples_ns, least_percent=_DRIFT_PERCENT, alpha=_ALPHA).found:
        return False
    return not find_level_shifts(
        samples_ns,
        least_percent=_SHIFT_PERCENT,
        least_tail_percent=_TAIL_PERCENT,
        alpha=_ALPHA,
    )
