# SPDX-License-Identifier: Apache-2.0
"""The command line. Commands are imported when they are run, so that help is quick."""

from __future__ import annotations

import errno
import importlib
import os
import signal
import sys
from types import FrameType

import click

from edge_imprint import __version__

__all__ = ["main"]

# name: (module, one line of help). The help stands here because reading it off the command
# would import what the command needs.
_COMMANDS = {
    "demo": ("_demo", "See it work, on real handwritten digits, in under a minute."),
    "build": ("_build", "Imprint a head from labelled photos."),
    "evaluate": ("_evaluate", "Try the ways to imprint on your photos; recommend one."),
    "backbones": ("_backbones", "List the backbones there are: size, input, weights."),
    "export": ("_export", "Make one ONNX file of a head and its backbone, for a target."),
    "check": ("_check", "Tell what a target refuses of an ONNX file, or gets wrong."),
    "verify": ("_verify", "Hold a model against its head on your photos."),
    "predict": ("_device", "Classify photos with a model."),
    "teach": ("_teach", "Let a teachable model learn, improve or forget a class."),
    "inspect": ("_device", "Show what a model or a head says of itself."),
    "compile": ("_compile", "Compile a model to a TensorRT engine for this device."),
    "bench": ("_bench", "Measure a model's latency, and judge the measurement."),
    "report": ("_report", "Show reports of bench, or compare them."),
    "cache": ("_cache", "Show or prune what is kept between builds."),
    "doctor": ("_doctor", "Tell what this machine can do, and how to mend what it can't."),
}


_EXTRAS = {
    "matplotlib": "demo",
    "onnx": "demo",
    "onnxruntime": "cpu",
    "onnxscript": "host",
    "sklearn": "demo",
    "timm": "host",
    "torch": "host",
}


class _LazyGroup(click.Group):
    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(_COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in _COMMANDS:
            return None
        return _command(cmd_name)

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        try:
            return super().resolve_command(ctx, args)
        except click.UsageError as error:
            import difflib  # here, since it is needed where a command is misspelt

            near = difflib.get_close_matches(args[0], _COMMANDS, n=1)
            if not near:
                raise
            text = f"{error.message.rstrip('.')}, did you mean {near[0]!r}?"
            raise click.UsageError(text, ctx) from error

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl([(name, text) for name, (_, text) in _COMMANDS.items()])


def _command(name: str) -> click.Command:
    module = importlib.import_module(f"edge_imprint.cli.{_COMMANDS[name][0]}")
    command: click.Command = getattr(module, name)
    return command


@click.group(cls=_LazyGroup, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="edge-imprint")
@click.option("--debug", is_flag=True, help="Show a traceback where an error is unexpected.")
def _cli(debug: bool) -> None:
    """Make a classifier for an embedded device without training.

    Photos in folders -> build -> export -> one ONNX file -> predict, bench.
    """


def main(arguments: list[str] | None = None) -> None:
    """Run the command line; every error becomes one line on stderr and an exit status.

    Args:
        arguments: Instead of the process's own.

    Raises:
        SystemExit: Always: 0 ok, 1 failed, 2 wrong use, 130 interrupted.
    """
    if arguments is None and signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, _on_interrupt)
    given = sys.argv[1:] if arguments is None else arguments
    sys.exit(_run(given or ["--help"]))


def _run(arguments: list[str]) -> int:
    try:
        _cli.main(arguments, prog_name="edge-imprint", standalone_mode=False)
    except click.exceptions.Exit as stop:
        return stop.exit_code
    except click.ClickException as error:
        context = getattr(error, "ctx", None)
        command = context.command_path if context is not None else "edge-imprint"
        text = error.format_message().rstrip(".")
        if isinstance(error, click.UsageError):
            text = f"{text}; see '{command} --help'"
        return _fail(text, error.exit_code)
    except (KeyboardInterrupt, click.exceptions.Abort) as stop:
        return _interrupted(str(stop.__cause__ or stop))  # click makes the one the other
    except BrokenPipeError:
        # The reader (head, less) went away: what is left of stdout goes nowhere.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except MemoryError:
        return _fail("out of memory; give fewer or smaller inputs", 1)
    except Exception as error:
        # Imported here, since it brings numpy, which help can do without.
        from edge_imprint_runtime.errors import EdgeImprintError

        if _by_interrupt(error):
            return _interrupted()
        error = _missing_package(error)
        if isinstance(error, EdgeImprintError):
            return _fail(_with_dashes(str(error), arguments), error.exit_code)
        if "--debug" in arguments:
            raise
        text = " ".join(str(error).split())[:300]
        if getattr(error, "errno", None) == errno.ENOSPC:  # stdout into a file, mostly
            return _fail("no space left on the device; free some and run it again", 1)
        return _fail(
            f"unexpected {type(error).__name__}: {text}; this is a bug, "
            "please report it with what 'edge-imprint --debug ...' prints",
            1,
        )
    return 0


def _missing_package(error: Exception) -> Exception:
    """Turn the lack of an optional package into the error that says what to install."""
    from edge_imprint_runtime.errors import MissingPackageError

    package = (getattr(error, "name", None) or "").partition(".")[0]
    if isinstance(error, ModuleNotFoundError) and package in _EXTRAS:
        return MissingPackageError(package, "this command", _EXTRAS[package])
    return error


def _with_dashes(text: str, arguments: list[str]) -> str:
    """Name an option as the command line does, where a message begins with a parameter."""
    parameter, must, rest = text.partition(" must ")
    if not must:
        return text
    command = _command(next(one for one in arguments if one in _COMMANDS))
    for option in command.params:
        if parameter in (option.name, option.opts[0].lstrip("-").replace("-", "_")):
            return f"{option.opts[0]} must {rest}"
    return text


def _on_interrupt(number: int, frame: FrameType | None) -> None:
    """Raise KeyboardInterrupt; but leave at once while a library is being imported.

    Some (protobuf's, 5.x) crash where an exception comes amid their start. Nothing is being
    written then.
    """
    while frame is not None:
        if frame.f_code.co_filename.startswith("<frozen importlib"):
            os._exit(_interrupted())
        frame = frame.f_back
    raise KeyboardInterrupt


def _interrupted(more: str = "") -> int:
    text = "interrupted; no file was left half-written"
    return _fail(f"{text}; {more}" if more else text, 130)


def _by_interrupt(error: BaseException | None) -> bool:
    # A library that is interrupted while it loads (ONNX Runtime does) raises ImportError.
    while error is not None and not isinstance(error, KeyboardInterrupt):
        error = error.__cause__ or error.__context__
    return error is not None


def _fail(text: str, status: int) -> int:
    # One line, whatever names it holds, and never a character that the terminal can't show.
    line = "error: " + " ".join(text.split("\n"))
    encoding = sys.stderr.encoding or "utf-8"
    click.echo(line.encode(encoding, "backslashreplace").decode(encoding), err=True)
    return status
