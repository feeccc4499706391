# SPDX-License-Identifier: Apache-2.0
"""What is to be measured, and how."""

from __future__ import annotations

from dataclasses import dataclass

from edge_imprint_runtime.errors import ParameterError
from edge_imprint_runtime.measuring.cold import MAX_COLD
from edge_imprint_runtime.measuring.limits import WARM_UP_S, Limit, check_warm_up
from edge_imprint_runtime.measuring.load import MAX_CONCURRENCY, MAX_RATE_PER_S

__all__ = ["MAX_BATCH", "MAX_LABEL", "Plan"]

MAX_BATCH = 4_096
MAX_LABEL = 300
# Above this a share of what the model can do is no load any more, but a pile.
_MAX_SHARE = 10.0


@dataclass(frozen=True)
class Plan:
    """What is to be measured, and how.

    Attributes:
        batches: Batch sizes, each a set of series.
        frame_size: Height and width in pixels, for models that take frames of any size.
        iterations: Samples a series; 1,000 where no duration is given either.
        duration_s: Instead: seconds for each batch size.
        concurrency: Threads that call at once.
        rate_per_s: Calls that arrive in a second, at random.
        rate_share: Instead: that rate as a share of what the same threads do in a closed
            loop, which is then measured first.
        mlperf: A single stream as MLPerf Inference runs it, instead of all else.
        stages: Also copy-in, compute and copy-out apart.
        layers: Also the time by layer.
        cold: So many starts of a fresh process; 0: none.
        label: A name for the run.
        warm_up_s: Seconds that each series has at most to become steady.
        seed: Of everything random.
    """

    batches: tuple[int, ...] = (1,)
    frame_size: tuple[int, int] | None = None
    iterations: int | None = None
    duration_s: float | None = None
    concurrency: int = 1
    rate_per_s: float | None = None
    rate_share: float | None = None
    mlperf: bool = False
    stages: bool = False
    layers: bool = False
    cold: int = 0
    label: str | None = None
    warm_up_s: float = WARM_UP_S
    seed: int = 0

    @property
    def mode(self) -> str:
        """The report's ``method.mode``."""
        if self.mlperf:
            return "mlperf"
        if self.offers:
            return "load"
        return "turns" if self.concurrency == 1 else "concurrent"

    @property
    def offers(self) -> bool:
        """Whether calls arrive at a rate of their own."""
        return self.rate_per_s is not None or self.rate_share is not None

    def check(self) -> None:
        """Refuse what can't be measured, before anything is.

        Raises:
            ParameterError: A value is out of range, or two contradict each other.
        """
        Limit.of(self.iterations, self.duration_s)
        check_warm_up(self.warm_up_s)
        if not self.batches or min(self.batches) < 1 or max(self.batches) > MAX_BATCH:
            raise ParameterError(
                f"batch must be integers from 1 to {MAX_BATCH}, got {self.batches}"
            )
        if len(set(self.batches)) < len(self.batches):
            raise ParameterError(f"a batch is measured once, got {self.batches}")
        if not 1 <= self.concurrency <= MAX_CONCURRENCY:
            raise ParameterError(
                f"concurrency must be an integer from 1 to {MAX_CONCURRENCY}, "
                f"got {self.concurrency}"
            )
        if not 0 <= self.cold <= MAX_COLD:
            raise ParameterError(
                f"cold must be an integer from 0 to {MAX_COLD}, got {self.cold}"
            )
        if self.label is not None and not 0 < len(self.label) <= MAX_LABEL:
            raise ParameterError(f"a label has 1 to {MAX_LABEL} characters")
        self._check_rate()
        if self.mlperf and (
            self.offers or self.concurrency > 1 or self.batches != (1,) or self.stages
        ):
            raise ParameterError(
                "MLPerf's single stream is one query of one image after the other; leave out "
                "batch, concurrency, rate and stages"
            )

    def _check_rate(self) -> None:
        if self.rate_per_s is not None and self.rate_share is not None:
            raise ParameterError("give a rate a second or a share of the throughput, not both")
        if self.rate_per_s is not None and not 0 < self.rate_per_s <= MAX_RATE_PER_S:
            raise ParameterError(
                f"rate must be above 0 and at most {MAX_RATE_PER_S:.0f} a second, "
                f"got {self.rate_per_s:g}"
            )
        if self.rate_share is not None and not 0 < self.rate_share <= _MAX_SHARE:
            raise ParameterError(
                f"rate must be above 0 % and at most {_MAX_SHARE:.0%} of the throughput, "
                f"got {self.rate_share:g}"
            )
