# SPDX-License-Identifier: Apache-2.0
"""`edge-imprint bench`: how fast a model is, and whether the figures can be trusted."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import click

from edge_imprint.cli._bench_tables import show_report
from edge_imprint.cli._console import FORCE, build_progress, note, print_json, say
from edge_imprint_runtime.engine.opening import is_engine, open_engine
from edge_imprint_runtime.engine.sidecar import sidecar_path
from edge_imprint_runtime.errors import NoContractError, OutputWriteError
from edge_imprint_runtime.files import check_output
from edge_imprint_runtime.knowledge import head_beside
from edge_imprint_runtime.measuring import (
    Plan,
    Subject,
    model_subject,
    run_bench,
    runner_subject,
)
from edge_imprint_runtime.measuring.bench import open_subject
from edge_imprint_runtime.measuring.limits import check_threads
from edge_imprint_runtime.measuring.run import Progress
from edge_imprint_runtime.model import open_model
from edge_imprint_runtime.reporting.schema import write_report

__all__ = ["bench"]

_BACKBONE = "backbone only"


@click.command()
@click.argument("model", type=click.Path())
@click.option(
    "--backend", default="auto", show_default=True, help="auto, cpu, cuda or tensorrt."
)
@click.option(
    "--threads", default=0, show_default=True, help="CPU threads; 0: ONNX Runtime chooses."
)
@click.option("--batch", default="1", show_default=True, help="Batch sizes, such as 1,8.")
@click.option(
    "--frame-size", metavar="WIDTHxHEIGHT", help="Of frames, where the model takes any size."
)
@click.option("--iterations", type=int, help="Samples a series; 1000 if no duration is given.")
@click.option("--duration", help="Instead: seconds for each batch size, such as 30s.")
@click.option(
    "--warm-up", default="30s", show_default=True, help="At most, until times are steady."
)
@click.option(
    "--beside", multiple=True, type=click.Path(), help="Another model, in turns with it."
)
@click.option("--concurrency", default=1, show_default=True, help="Threads that call at once.")
@click.option(
    "--rate", help="Calls that arrive at random: 20/s, or 80% of what the threads can do."
)
@click.option("--mlperf", is_flag=True, help="A single stream by MLPerf's rules: 600 s.")
@click.option("--stages", is_flag=True, help="Also copy-in, compute and copy-out apart.")
@click.option("--layers", is_flag=True, help="Also the time by layer.")
@click.option("--cold", default=0, show_default=True, help="Also so many cold starts.")
@click.option("--cuda-graph", is_flag=True, help="Launch an engine's kernels as one graph.")
@click.option("--rebuild", is_flag=True, help="Compile an engine that does not fit again.")
@click.option("--label", help="A name for the run, to tell reports apart.")
@click.option("--out", type=click.Path(), help="A JSON file for the report and raw samples.")
@click.option("--json", "as_json", is_flag=True, help="Print the report as JSON on stdout.")
@FORCE
def bench(
    model: str,
    backend: str,
    threads: int,
    beside: tuple[str, ...],
    cuda_graph: bool,
    rebuild: bool,
    out: str | None,
    as_json: bool,
    force: bool,
    **options: Any,
) -> None:
    """Measure MODEL's latency, beside that of its backbone alone.

    How, and what the figures mean: docs/measuring.md.
    """
    plan = _plan(**options)
    plan.check()
    check_threads(threads)
    if beside and plan.mode != "turns":
        raise click.BadParameter(
            "is measured in turns, which goes with neither --concurrency, --rate nor --mlperf",
            param_hint="--beside",
        )
    if out is not None:
        kept = [head_beside(model), *map(sidecar_path, (model, *beside))]
        check_output(out, force=force, inputs=[model, *beside, *kept])

    how = _How(backend, threads, cuda_graph, rebuild)
    # What is for engines is for those among the files; without any, it is refused.
    first = how if not any(map(_engine, beside)) else how.fit_for(model)
    opened: list[Subject] = []
    try:
        with build_progress(rebuild) as tell:
            subject, memory = open_subject(lambda: first.open(model, progress=tell), plan)
            opened.append(subject)
            backbone = _backbone_only(subject, Path(model), how, plan)
            opened += [backbone] if backbone is not None else []
            for path, name in zip(beside, _names(beside), strict=True):
                alone = name if any(one.name == _BACKBONE for one in opened) else _BACKBONE
                opened.append(how.fit_for(path).open(path, name, alone, progress=tell))
        with _progress() as show:
            report = run_bench(
                subject,
                plan,
                path=model,
                beside=opened[1:],
                backend=backend,
                cuda_graph=first.cuda_graph,
                memory=memory,
                progress=show,
            )
    finally:
        for one in opened:
            if one.runner is not None:
                one.runner.close()
    _deliver(report, out, as_json=as_json, force=force)


def _deliver(report: dict[str, Any], out: str | None, *, as_json: bool, force: bool) -> None:
    """Show the report before it is written: if that fails, minutes of work are not lost."""
    if as_json:
        print_json(report)
    else:
        show_report(report)
    for finding in report["verdict"]["findings"]:
        kind = "unstable" if finding["severe"] else "note"
        note(f"{kind}: {finding['text']}")
    if out is None:
        return
    try:
        write_report(out, report, force=force)
    except OutputWriteError:
        if not as_json:
            note("note: the figures above are all there is now; --json prints the report")
        raise
    if not as_json:
        say(f"report: {out}")


def _plan(
    batch: str,
    frame_size: str | None,
    iterations: int | None,
    duration: str | None,
    warm_up: str,
    concurrency: int,
    rate: str | None,
    mlperf: bool,
    stages: bool,
    layers: bool,
    cold: int,
    label: str | None,
) -> Plan:
    rate_per_s, rate_share = _rate(rate)
    return Plan(
        _batches(batch),
        None if frame_size is None else _frame_size(frame_size),
        iterations,
        None if duration is None else _seconds(duration, "--duration"),
        concurrency,
        rate_per_s,
        rate_share,
        mlperf,
        stages,
        layers,
        cold,
        label,
        _seconds(warm_up, "--warm-up"),
    )


@dataclass(frozen=True)
class _How:
    """How files are opened."""

    backend: str
    threads: int
    cuda_graph: bool
    rebuild: bool

    def fit_for(self, path: str) -> _How:
        """Return it for a file that may be no engine, or be one beside an ONNX file."""
        if _engine(path):
            return replace(self, backend="auto")
        return replace(self, cuda_graph=False, rebuild=False)

    def open(
        self,
        path: str,
        name: str | None = None,
        alone: str = _BACKBONE,
        *,
        progress: Progress | None = None,
    ) -> Subject:
        """Open a model; or a backbone alone, which has no contract but one known output.

        Args:
            path: Its file.
            name: Of the model's series; None: by what it is.
            alone: Of the series of a backbone alone.
            progress: Told how far it is, if an engine is compiled again.
        """
        options: dict[str, Any] = {"cuda_graph": self.cuda_graph, "rebuild": self.rebuild}
        options["progress"] = progress
        try:
            model = open_model(path, self.backend, threads=self.threads, **options)
            return model_subject(model, name)
        except NoContractError:
            if _engine(path):
                runner: Any = open_engine(Path(path), **options)
            else:
                from edge_imprint_runtime.backends.ort import OrtRunner

                runner = OrtRunner(Path(path), self.backend, self.threads)
            if list(runner.outputs) != ["embedding"]:
                runner.close()
                raise
            return runner_subject(runner, alone)


def _engine(path: str) -> bool:
    return os.path.isfile(path) and is_engine(Path(path))


def _names(beside: tuple[str, ...]) -> list[str]:
    """Name each by its file, or by its path where two files have one name."""
    names = [Path(path).name for path in beside]
    return [
        name if names.count(name) == 1 else path
        for path, name in zip(beside, names, strict=True)
    ]


def _backbone_only(subject: Subject, file: Path, how: _How, plan: Plan) -> Subject | None:
    """Open the same file without its head, where it has both."""
    if subject.model is None or subject.name == "head":
        return None
    if plan.mode != "turns":
        note(
            "note: the backbone alone is measured in turns with the model, and so not with "
            "--concurrency, --rate or --mlperf"
        )
        return None
    if is_engine(file):
        note(
            "note: an engine can't be taken apart; compile its backbone (export --part "
            "backbone) and measure that too, with --beside"
        )
        return None
    from edge_imprint_runtime.backends.ort import OrtRunner
    from edge_imprint_runtime.headless import headless

    runner = OrtRunner(headless(file.read_bytes(), str(file)), how.backend, how.threads)
    return runner_subject(runner, _BACKBONE)


@contextlib.contextmanager
def _progress() -> Iterator[Callable[[str, int, int], None]]:
    """Say on stderr what is measured, and on a terminal how far it is.

    Not the bars of the other commands: those are drawn by a thread, ten times a second, and
    what is measured here must have the machine to itself.
    """
    on_terminal, shown = sys.stderr.isatty(), [""]
    pressed: list[int] = []
    ours = signal.getsignal(signal.SIGINT) is signal.default_int_handler

    def interrupt(number: int, _: object) -> None:
        pressed.append(number)
        raise KeyboardInterrupt

    def tell(step: str, done: int, total: int) -> None:
        if pressed:  # and the exception was lost in a library's code, as about 1 in 100 is
            raise KeyboardInterrupt
        if step != shown[0]:
            if shown[0] and on_terminal:
                click.echo(err=True)
            shown[0] = step
            if not on_terminal:
                note(f"{step} ...")
        if on_terminal:
            click.echo(f"\r{step} ... {done / max(1, total):4.0%}", nl=False, err=True)

    if ours:
        signal.signal(signal.SIGINT, interrupt)
    try:
        yield tell
    finally:
        if ours:
            signal.signal(signal.SIGINT, signal.default_int_handler)
    if shown[0] and on_terminal:
        click.echo(err=True)


def _batches(text: str) -> tuple[int, ...]:
    if not re.fullmatch(r"[0-9]{1,4}(,[0-9]{1,4})*", text):
        raise click.BadParameter(
            f"must be numbers from 1 to 4096 such as 1,8, got {text!r}",
            param_hint="--batch",
        )
    return tuple(dict.fromkeys(int(part) for part in text.split(",")))


def _frame_size(text: str) -> tuple[int, int]:
    match = re.fullmatch(r"([0-9]{1,5})x([0-9]{1,5})", text)
    if match is None:
        raise click.BadParameter(
            f"must be WIDTHxHEIGHT such as 1280x720, got {text!r}", param_hint="--frame-size"
        )
    return int(match[2]), int(match[1])


def _seconds(text: str, option: str) -> float:
    match = re.fullmatch(r"([0-9]{1,6}(?:\.[0-9]{1,6})?)(s|m|min)?", text)
    if match is None:
        raise click.BadParameter(
            f"must be seconds such as 30s, or minutes such as 2m, got {text!r}",
            param_hint=option,
        )
    return float(match[1]) * (60 if (match[2] or "s").startswith("m") else 1)


def _rate(text: str | None) -> tuple[float | None, float | None]:
    if text is None:
        return None, None
    match = re.fullmatch(r"([0-9]{1,7}(?:\.[0-9]{1,6})?)(/s|%)", text)
    if match is None:
        raise click.BadParameter(
            f"must be calls a second such as 20/s, or a share such as 80%, got {text!r}",
            param_hint="--rate",
        )
    value = float(match[1])
    return (value, None) if match[2] == "/s" else (None, value / 100)
