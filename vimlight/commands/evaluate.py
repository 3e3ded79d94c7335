"""`vimlight evaluate`: methods compared on cached logits by a named protocol."""

from __future__ import annotations

import argparse
import itertools
import re
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vimlight.commands.beforehand import check_caches, check_file
from vimlight.commands.options import Parser
from vimlight.errors import AdapterError, ConfigError, unknown_name
from vimlight.files.yaml_text import yaml_of

if TYPE_CHECKING:
    from vimlight.transmiter.judging.summary import Run

__all__ = ["main"]

_TEXT = """Compare methods on logit caches: source and target zero-shot and fine-tuned, EFT, ensemble, ridges,
Tip-Adapter, TransMiter, and `safe`, a mixture that is meant to be no worse than the better of target zero-shot and
fine-tuned source. A method whose caches are not given is left out, with a line saying why. Paths may hold {seed},
{dataset} and {shots}; the values of --seeds, --datasets and --shots are put in, and all runs end up in one table."""
_CACHES = {
    "target": "zero-shot logits of the strong model on the images to be scored, with labels",
    "source": "zero-shot logits of the weak model on the same images",
    "source_tuned": "logits of the fine-tuned weak model on the same images",
    "target_tuned": "logits of the strong model, fine-tuned itself, on the same images",
    "target_train": "the target on training images, for methods that are fitted here",
    "source_train": "the source on the same training images",
    "source_tuned_train": "the fine-tuned source on the same training images",
    "target_val": "the target on validation images with labels, to choose settings and weights on",
    "source_val": "the source on the same validation images",
    "source_tuned_val": "the fine-tuned source on the same validation images",
}
_ADAPTERS = {
    "adapter": "TransMiter, or a gap ridge, for the target (from vimlight transfer)",
    "gap_ridge": "a gap ridge for the target, besides --adapter",
    "adapter_unmoved": "the adapter before its transfer, to see what the basis change is worth",
    "adapter_no_aux": "an adapter learnt and moved without auxiliary classes",
    "adapter_published": "an adapter learnt and moved with the published settings",
    "adapter_plus": "TransMiter+: the adapter tuned further on a few labels",
}
_PLACEHOLDER = re.compile(r"\{(\w*)\}")


def main(arguments: Sequence[str]) -> None:
    """Runs `vimlight evaluate`.

    Args:
        arguments: The command line behind `vimlight evaluate`.

    Raises:
        VimlightError: If the command line, a cache or an adapter is not as it should be.
    """
    options = _parser().parse_args(arguments)
    outputs = _outputs(options)
    _check_protocol(options.protocol)
    from vimlight.files.atomic import refuse_existing, write_whole

    for path in outputs.values():
        refuse_existing(path, options.overwrite, "--overwrite")
    runs = list(_runs(options))
    for kind, path in outputs.items():
        write_whole(path, _text(kind, runs, options), overwrite=options.overwrite)
    if options.json:
        print(_text("json", runs, options), end="")
        return
    _show(runs, options, outputs)


def _parser() -> Parser:
    from vimlight.transmiter.judging.protocols import PROTOCOLS

    parser = Parser("vimlight evaluate", description=_TEXT)
    parser.add_argument("--protocol", metavar="NAME", required=True, help=", ".join(PROTOCOLS))
    parser.add_argument("--base", metavar="CLASSES", help="base classes: 0,1,2 or 0-9 or names (default: the cache's)")
    for role, text in _CACHES.items():
        parser.add_argument(_option(role), metavar="DIR", required=role == "target", help=text)
    for role, text in _ADAPTERS.items():
        parser.add_argument(_option(role), metavar="FILE", help=text)
    parser.add_argument("--methods", metavar="NAMES", help="methods with commas between (default: all)")
    parser.add_argument("--set", metavar="METHOD.NAME=VALUE", action="append", default=[], help="as in eft.alpha=0.5")
    parser.add_argument("--shots", metavar="COUNTS", help="labelled training images of each class, as in 1,2,4")
    parser.add_argument("--seeds", metavar="SEEDS", default="0", help="as in 0,1,2 (default: 0)")
    parser.add_argument("--datasets", metavar="NAMES", help="data sets, with commas between")
    parser.add_argument(
        "--source-gmac", type=float, help="billions of multiply-adds of the source's encoder, to count them as cost"
    )
    parser.add_argument("--batch-size", type=int, default=4096, help="images at a time (default: 4096)")
    parser.add_argument("--device", default="cpu", help="where methods compute, such as cuda (default: cpu)")
    parser.add_argument("--out", metavar="FILE", help="results.json: every number, choice and cost")
    parser.add_argument("--markdown", metavar="FILE", help="the table in Markdown")
    parser.add_argument("--csv", metavar="FILE", help="every number as CSV")
    parser.add_argument(
        "--predictions", metavar="FILE", help="CSV of what every method predicts for every image, to pair any two"
    )
    parser.add_argument("--json", action="store_true", help="print JSON instead of the table")
    parser.add_argument("--overwrite", action="store_true", help="replace files that are there")
    return parser


def _check_protocol(name: str) -> None:
    from vimlight.transmiter.judging.protocols import PROTOCOLS

    if name not in PROTOCOLS:
        raise unknown_name("protocol", name, PROTOCOLS)


def _option(role: str) -> str:
    return f"--{role.replace('_', '-')}"


def _outputs(options: argparse.Namespace) -> dict[str, Path]:
    given = {
        "json": options.out, "markdown": options.markdown, "csv": options.csv, "predictions": options.predictions,
    }  # fmt: skip
    paths = {kind: Path(path).expanduser() for kind, path in given.items() if path is not None}
    if len({path.absolute() for path in paths.values()}) < len(paths):
        raise ConfigError("--out, --markdown, --csv and --predictions must name a file each, got one twice")
    return paths


def _runs(options: argparse.Namespace) -> Iterator[Run]:
    """Evaluates once for each data set, number of shots and seed."""
    seeds = _integers("--seeds", options.seeds)
    shots = [None] if options.shots is None else _integers("--shots", options.shots, least=1)
    datasets = [None] if options.datasets is None else _names("--datasets", options.datasets)
    paths = {role: path for role in (*_CACHES, *_ADAPTERS) if (path := getattr(options, role)) is not None}
    _check_placeholders(paths, options, len(seeds))
    settings = _settings(options.set)
    show = sys.stderr.isatty() and not options.json
    for dataset, count, seed in itertools.product(datasets, shots, seeds):
        values = {"seed": seed, "dataset": dataset, "shots": count}
        yield _run(options, _filled(paths, values), settings, dataset, count, seed, show)


def _filled(paths: Mapping[str, str], values: Mapping[str, Any]) -> dict[str, str]:
    return {role: _PLACEHOLDER.sub(lambda found: str(values[found[1]]), path) for role, path in paths.items()}


def _run(
    options: argparse.Namespace,
    paths: dict[str, str],
    settings: dict[str, dict[str, Any]],
    dataset: str | None,
    shots: int | None,
    seed: int,
    show: bool,
) -> Run:
    _check_inputs(paths)
    from vimlight.progress import track
    from vimlight.transmiter.cache.partitions import class_indices
    from vimlight.transmiter.judging.evaluation import evaluate
    from vimlight.transmiter.judging.roles import Inputs
    from vimlight.transmiter.judging.summary import Run

    inputs = Inputs.open(
        {role: path for role, path in paths.items() if role in _CACHES},
        {role: path for role, path in paths.items() if role in _ADAPTERS},
    )
    name = dataset or inputs.target.manifest.data.get("dataset") or inputs.target.path.name
    found = evaluate(
        inputs,
        options.protocol,
        base=None if options.base is None else class_indices(options.base, inputs.target.class_names, "--base"),
        methods=None if options.methods is None else _names("--methods", options.methods),
        settings=settings,
        shots=shots,
        seed=seed,
        batch_size=options.batch_size,
        device=_device(options.device),
        progress=lambda methods: track(methods, f"{name}, seed {seed}", show),
    )
    return Run(str(name), shots, seed, found, inputs.describe(paths))


def _check_inputs(paths: Mapping[str, str]) -> None:
    check_caches([path for role, path in paths.items() if role in _CACHES])
    for role, path in paths.items():
        if role in _ADAPTERS:
            check_file("adapter", path, AdapterError)


def _device(name: str) -> str:
    import torch

    try:
        torch.empty(0, device=name)
    except (RuntimeError, AssertionError) as error:
        raise ConfigError(f"--device {name}: {str(error).splitlines()[0]}") from error
    return name


def _check_placeholders(paths: dict[str, str], options: argparse.Namespace, seeds: int) -> None:
    given = {"seed": True, "dataset": options.datasets is not None, "shots": options.shots is not None}
    used = set()
    for role, path in paths.items():
        for name in _PLACEHOLDER.findall(path):
            if name not in given:
                raise unknown_name(f"placeholder in {_option(role)}", name, given)
            if not given[name]:
                plural = "--shots" if name == "shots" else f"--{name}s"
                raise ConfigError(f"{_option(role)} {path} has {{{name}}}; say which with {plural}")
            used.add(name)
    if given["dataset"] and "dataset" not in used:
        raise ConfigError("--datasets needs paths with {dataset} in them")
    if seeds > 1 and "seed" not in used and options.shots is None:
        raise ConfigError("--seeds needs paths with {seed} in them, or --shots to draw; every run would be the same")


def _settings(given: Sequence[str]) -> dict[str, dict[str, Any]]:
    """Reads the values of `--set`."""
    if not given:
        return {}
    from vimlight.transmiter.judging.methods import METHODS

    found: dict[str, dict[str, Any]] = {}
    for text in given:
        key, equals, value = text.partition("=")
        method, dot, name = key.partition(".")
        if not (equals and dot and name):
            raise ConfigError(f"--set {text}: expected METHOD.NAME=VALUE, as in eft.alpha=0.5")
        if method not in METHODS:
            raise unknown_name("method", method, METHODS)
        found.setdefault(method, {})[name] = yaml_of(value, f"--set {text}", ConfigError)
    return found


def _integers(option: str, text: str, least: int = 0) -> list[int]:
    parts = _names(option, text)
    wrong = [part for part in parts if not part.isdecimal() or int(part) < least]
    if wrong:
        raise ConfigError(f"{option} takes whole numbers from {least} on, as in 1,2,4; got {wrong[0]!r}")
    return list(map(int, parts))


def _names(option: str, text: str) -> list[str]:
    parts = [part.strip() for part in text.split(",")]
    if not all(parts) or len(set(parts)) < len(parts):
        raise ConfigError(f"{option} takes names with commas between, each once; got {text!r}")
    return parts


def _text(kind: str, runs: Sequence[Run], options: argparse.Namespace) -> str:
    from vimlight.report.evaluation import EvaluationTable
    from vimlight.report.evaluation_csv import numbers_csv, predictions_csv

    texts = {
        "json": lambda: _json(runs),
        "markdown": lambda: EvaluationTable.of(runs, options.source_gmac).markdown(),
        "csv": lambda: numbers_csv(runs),
        "predictions": lambda: predictions_csv(runs),
    }
    return texts[kind]()


def _json(runs: Sequence[Run]) -> str:
    import json

    from vimlight.report.files import stamped
    from vimlight.transmiter.judging.summary import as_dict

    return json.dumps(stamped(as_dict(runs)), indent=1, ensure_ascii=False, allow_nan=False) + "\n"


def _show(runs: Sequence[Run], options: argparse.Namespace, outputs: dict[str, Path]) -> None:
    from vimlight.report.evaluation import EvaluationTable

    EvaluationTable.of(runs, options.source_gmac).print()
    if outputs:
        print(f"written: {', '.join(map(str, outputs.values()))}")
