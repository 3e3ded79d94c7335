"""The command line: LightningCLI for training, and a file in `vimlight.commands` for every tool.

Nothing heavy is imported before it is known which of them is meant.
"""

from __future__ import annotations

import importlib
import os
import signal
import sys
from collections.abc import Callable, Sequence
from functools import partial

from vimlight import __version__
from vimlight.errors import ConfigError, VimlightError, printable, unknown_name
from vimlight.extensions import import_extension
from vimlight.masking import masked
from vimlight.shipped import resolved
from vimlight.trust import trust_only

__all__ = ["TOOLS", "TRAINING", "guarded", "main"]

TRAINING = {
    "fit": "train a module for the zoo, aggregate a zoo for a task, or train an adapter of logits",
    "validate": "measure a checkpoint on the validation images",
    "test": "measure a checkpoint on the test images",
    "predict": "write a checkpoint's predictions to a csv, json or parquet file",
}
TOOLS = {
    "demo": "train a zoo, aggregate it for few-shot tasks and compare with every simpler way",
    "compare": "compare methods on tasks of your own, as a plan in YAML says; a broken run goes on",
    "cache": "build, import, check, merge and re-head the logit caches of image-text models",
    "transfer": "make an adapter for another model from cached logits, by a closed form",
    "evaluate": "compare methods on logit caches by a named protocol",
    "export": "write a trained downstream model as one file: ONNX, torch.export, or weights of a timm model",
    "serve": "answer images for several tasks over one backbone, on a page and as JSON",
    "zoo": "list, rank, show, add, remove, verify, export, import, push, pull, search and sync modules",
    "report": "write one page of runs: tables, curves, gates, confusion, cost, reliability, configs",
    "new": "write a plug-in, aggregator, task or data source of your own, with its test, as a package",
    "configs": "list, show and copy the configs that come with the package, which --config @NAME takes",
    "data": "list the data sources, and show what they take and what is in a data set",
}

_USAGE = f"""vimlight {__version__}: small modules on one frozen backbone, aggregated for few-shot tasks

usage: vimlight COMMAND [options]          vimlight COMMAND --help for each of them

training, with LightningCLI configs:
{{training}}

tools:
{{tools}}

options: --version, --debug (a traceback for errors), --import MODULE (your own plug-ins, aggregators, data sets),
         --trusted-modules A,B (for configs of strangers: the packages, beside vimlight's own, whose code they may name)
examples: vimlight fit --config @midstream/letters
          vimlight fit --config @downstream/digits --data.shots 20"""


def main(arguments: Sequence[str] | None = None) -> None:
    """Runs the command line.

    Args:
        arguments: What was typed behind `vimlight`; the process's own arguments if left out.

    Raises:
        SystemExit: With code 2 after a user's mistake, which is said in one or two lines.
    """
    words = list(sys.argv[1:] if arguments is None else arguments)
    debug = "--debug" in words
    guarded(partial(_run, [word for word in words if word != "--debug"]), debug=debug)


def guarded(function: Callable[[], None], *, debug: bool = False) -> None:
    """Runs a program; a user's mistake is printed in one or two lines and ends it.

    Args:
        function: The program.
        debug: Whether mistakes raise instead, with their traceback.

    Raises:
        SystemExit: With code 2 after a user's mistake, and 130 after Ctrl-C.
    """
    try:
        function()
    except VimlightError as error:
        if debug:
            raise
        print(f"vimlight: {printable(masked(str(error)))}", file=sys.stderr)
        raise SystemExit(error.exit_code) from None
    except KeyboardInterrupt:
        if debug:
            raise
        print("vimlight: interrupted", file=sys.stderr)
        raise SystemExit(128 + signal.SIGINT) from None
    except BrokenPipeError:
        # The reader of a pipe left; whatever it wanted it has. The interpreter must not flush into the broken pipe.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        raise SystemExit(0) from None


def _run(words: list[str]) -> None:
    modules, trusted = _taken(words, "--import"), _taken(words, "--trusted-modules")
    named = [name.strip() for text in trusted for name in text.split(",") if name.strip()]
    trust_only([*named, *modules] if trusted else None)
    for name in modules:
        import_extension(name)
    _dispatch(_with_shipped(words))


def _with_shipped(words: list[str]) -> list[str]:
    """Returns a command line with the paths of shipped configs for their names."""
    found = []
    for before, word in zip(["", *words], words, strict=False):
        option, equals, value = word.partition("=")
        if equals and option in ("--config", "-c"):
            found.append(f"{option}={resolved(value)}")
        else:
            found.append(resolved(word) if before in ("--config", "-c", "compare") else word)
    return found


def _taken(words: list[str], option: str) -> list[str]:
    """Takes an option out of a command line, as often as it is there, and returns its values."""
    values: list[str] = []
    given = iter(words.copy())
    words.clear()
    for word in given:
        name, equals, value = word.partition("=")
        if name != option:
            words.append(word)
            continue
        following = value if equals else next(given, None)
        if following is None:
            raise ConfigError(f"{option} needs the name of a module")
        values.append(following)
    return values


def _dispatch(words: list[str]) -> None:
    if not words or words[0] in ("-h", "--help", "help"):
        print(_usage())
    elif words[0] == "--version":
        print(f"vimlight {__version__}")
    elif words[0] in TOOLS:
        importlib.import_module(f"vimlight.commands.{words[0]}").main(words[1:])
    elif words[0] in TRAINING and importlib.import_module("vimlight.commands.choices").answered(words):
        return
    elif words[0] in TRAINING:
        meeting = importlib.import_module("vimlight.commands.meeting").Meeting()
        with meeting.told():
            importlib.import_module("vimlight.commands.beforehand").check_training(words[1:])
            importlib.import_module("vimlight.commands.train").main(words, meeting)
    else:
        raise unknown_name("command", words[0], [*TRAINING, *TOOLS])


def _usage() -> str:
    def rows(commands: dict[str, str]) -> str:
        return "\n".join(f"  {name:<10} {text}" for name, text in commands.items())

    return _USAGE.format(training=rows(TRAINING), tools=rows(TOOLS))
