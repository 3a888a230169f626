"""The command line, `pyro-lvm`."""

import io
import os
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch

from pyro_lvm import __version__
from pyro_lvm.cli.commands import COMMANDS
from pyro_lvm.cli.options import UsageError, nearest

__all__ = ["main"]

# What the library raises for what it was given. Anything else is a defect, of which the error says how to see more.
_EXPECTED = (ValueError, OSError, FloatingPointError)

# What to do about an error, as one would type it.
_TYPED = {
    "'root'": "--data-root",
    "download=True": "--download",
    "binarise='static'": "--binarise static",
    "overwrite=True": "--overwrite",
}


def main(argv: Sequence[str] | None = None) -> int:
    """Runs a command.

    Args:
        argv: its name and arguments; those of the process where left out.

    Returns:
        The exit status: 0; 1 where `verify` found a difference; 2 for an error, told in one line on stderr; 130 where
        it was interrupted. A training that SIGTERM stops exits with 143.
    """
    arguments = list(sys.argv[1:] if argv is None else argv)
    debug = "--debug" in arguments
    arguments = [argument for argument in arguments if argument != "--debug"]
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="replace")  # minus signs and the like, where the encoding has none
    try:
        with _single_precision():
            return _dispatch(arguments)
    except KeyboardInterrupt as stopped:
        _complain(str(stopped) or "stopped; nothing was saved.")
        return 130
    except BrokenPipeError:  # the reader of the output has seen enough; a second error at exit would be no news
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except Exception as error:
        if debug:
            raise
        _complain(f"error: {_in_words(error)}")
        return 2


def _dispatch(arguments: list[str]) -> int:
    if not arguments:
        raise UsageError(f"name a command: {', '.join(COMMANDS)}; --help tells more.")
    first, rest = arguments[0], arguments[1:]
    if first in ("--help", "-h"):
        _print_help()
    elif first == "--version":
        print(f"pyro-lvm {__version__}")
    elif first in COMMANDS:
        return COMMANDS[first].run(rest)
    else:
        what = "option" if first.startswith("-") else "command"
        raise UsageError(f"there is no {what} '{first}'{nearest(first, [*COMMANDS, '--help', '--version', '--debug'])}")
    return 0


def _print_help() -> None:
    commands = "\n".join(f"  {f'{name} {c.usage}'.strip():<26}{c.summary}" for name, c in COMMANDS.items())
    print(
        "usage: pyro-lvm COMMAND [options]\n\n"
        "Latent variable models as Pyro programs: train one, judge it, draw from it.\n\n"
        f"commands:\n{commands}\n\n"
        "options:\n"
        f"  {'-h, --help':<26}Show this, or behind a command what that takes.\n"
        f"  {'--version':<26}Show the version.\n"
        f"  {'--debug':<26}Show the traceback of an error.\n\n"
        "`pyro-lvm train NAME --help` lists all settings of a recipe; `pyro-lvm demo` is a first run."
    )


@contextmanager
def _single_precision() -> Iterator[None]:
    """What a command makes is in PyTorch's usual precision, whatever the process that calls it has set."""
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.float32)
    try:
        yield
    finally:
        torch.set_default_dtype(before)


def _in_words(error: Exception) -> str:
    message = " ".join(str(error).split())
    for called, typed in _TYPED.items():
        message = message.replace(called, typed)
    if isinstance(error, OSError) and error.filename is not None:
        return f"'{error.filename}': {error.strerror}"
    if isinstance(error, _EXPECTED):
        return message
    return f"{type(error).__name__}: {message} (--debug shows where)"


def _complain(message: str) -> None:
    print(f"pyro-lvm: {message}", file=sys.stderr)
