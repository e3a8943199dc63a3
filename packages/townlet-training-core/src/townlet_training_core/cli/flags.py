"""What old scripts share: flags written as one line, JSON on standard output, one way to end."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from townlet_training_core.errors import TorchNotAvailableError, TownletError

__all__ = ["emit", "parser", "run", "say", "script"]

Main = Callable[[Sequence[str] | None], int]
_TYPES: dict[str, Callable[[str], Any]] = {"int": int, "float": float, "path": Path, "str": str}


def parser(description: str, flags: str, *, name: str | None = None) -> argparse.ArgumentParser:
    """Build a parser from words such as ``config:path --ticks:int=100 --output:path! --compress include:str*``.

    A word is a name, its type, and a default after ``=``. ``!`` requires it, ``*`` and ``+`` take several, ``?`` makes
    a positional optional, ``a|b`` lists choices. An option without a type is a switch, and
    ``--on/--off`` are two ends of one.
    """
    made = argparse.ArgumentParser(prog=name, description=description)
    for word in flags.split():
        flag, _, kind = word.partition(":")
        if "/" in flag:
            yes, no = flag.split("/")
            made.add_argument(yes, action="store_true", default=None)
            made.add_argument(no, dest=yes.strip("-").replace("-", "_"), action="store_false", default=None)
            continue
        if not kind:
            made.add_argument(flag, action="store_true")
            continue
        kind, _, text = kind.partition("=")
        plain = kind.rstrip("!*+?")
        options: dict[str, Any] = {"choices": plain.split("|")} if "|" in plain else {"type": _TYPES[plain]}
        if text:
            options["default"] = _TYPES.get(plain, str)(text)
        if kind[-1] == "!":
            options["required"] = True
        elif kind[-1] in "*+?":
            options["nargs"] = kind[-1]
        made.add_argument(flag, **options)
    return made


def say(text: str) -> None:
    """Write a line on standard output."""
    sys.stdout.write(f"{text}\n")


def emit(payload: Any) -> None:
    """Write JSON on standard output."""
    say(json.dumps(payload, indent=2, default=str))


def script(flags: str) -> Callable[[Callable[[argparse.Namespace], int]], Main]:
    """Make ``main(argv=None)`` of a function that takes parsed flags; run it when its module is the program.

    The function must be the last of its module then.
    """

    def decorate(body: Callable[[argparse.Namespace], int]) -> Main:
        def main(argv: Sequence[str] | None = None) -> int:
            own = body.__name__ == "main"  # the only function of its module, which describes it
            description = sys.modules[body.__module__].__doc__ if own else body.__doc__
            name = Path(body.__code__.co_filename).stem if own else body.__name__
            args = parser(str(description), flags, name=name).parse_args(argv)
            try:
                return body(args)
            except TorchNotAvailableError as error:  # callers of ``main`` expect the exit, too
                raise SystemExit(f"PyTorch not installed: {error}") from error

        main.__doc__ = body.__doc__
        if body.__module__ == "__main__":
            run(main)
        return main

    return decorate


def run(main: Main, argv: Sequence[str] | None = None) -> None:
    """Run a script and end the process as it says; what the library refuses is one line and exit code 1."""
    try:
        code = main(argv)
    except (TownletError, OSError) as error:
        raise SystemExit(f"error: {error}") from error
    raise SystemExit(code)
