"""`vimlight transfer`: an adapter for another model, from cached logits alone."""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

from vimlight.commands.beforehand import check_caches, check_file
from vimlight.commands.options import Parser
from vimlight.commands.output import print_table
from vimlight.errors import AdapterError, ConfigError, unknown_name

if TYPE_CHECKING:
    from vimlight.transmiter import LogitCache
    from vimlight.transmiter.adapters import Adapter

__all__ = ["main"]

_TEXT = """Makes an adapter for one or more target models from cached logits of the same images. No model is loaded,
no label is read, and nothing is trained: gap_ridge regresses what fine-tuning changed in the source on the target's
features, transmiter moves an adapter that was learnt on the source by a closed form."""
# Below this share of what fine-tuning changed, even noise may seem to be told: the strength is the best of several.
_TELLS = 0.05
_FACTS = {
    "transmiter": ("rows", "beta", "beta_per_sample", "agreement"),
    "gap_ridge": ("rows", "reads", "strength", "explained_left_out"),
}


def main(arguments: Sequence[str]) -> None:
    """Runs `vimlight transfer`.

    Args:
        arguments: The command line behind `vimlight transfer`.

    Raises:
        VimlightError: If the command line, a file or a cache is not as it should be.
        SystemExit: With 0 behind `--help`.
    """
    options = _parser().parse_args(arguments)
    if options.method is None:
        options.method = _method(options)
    if options.method not in _METHODS:
        raise unknown_name("transfer method", options.method, _METHODS)
    _check_options(options)
    check_caches([options.source, *options.target, *([options.source_tuned] if options.source_tuned else [])])
    if options.adapter is not None:
        check_file("adapter", options.adapter, AdapterError)
    files = _check_files(options)
    start = time.perf_counter()
    adapters = _METHODS[options.method](options)
    for adapter, file in zip(adapters, files, strict=True):
        adapter.save(file, overwrite=options.overwrite)
    _report(options, adapters, files, time.perf_counter() - start)


def _parser() -> Parser:
    parser = Parser(prog="vimlight transfer", description=_TEXT)
    caches = {"metavar": "DIR", "required": True}
    text = "transmiter or gap_ridge (default: transmiter where --adapter is given, else gap_ridge)"
    parser.add_argument("--method", help=text)
    parser.add_argument("--adapter", metavar="FILE", help="the source model's adapter, for transmiter")
    parser.add_argument("--source", **caches, help="cache of the source model's zero-shot logits")  # type: ignore[arg-type]
    parser.add_argument("--source-tuned", metavar="DIR", help="cache of the fine-tuned source, for gap_ridge")
    parser.add_argument("--target", **caches, nargs="+", help="caches of the target models, of the same images")  # type: ignore[arg-type]
    parser.add_argument("--out", metavar="FILE", nargs="+", required=True, help="a new .safetensors file a target")
    parser.add_argument("--beta", type=float, help="pull towards no change of basis, over all images (default: 500)")
    parser.add_argument(
        "--beta-per-sample",
        type=_beta,
        metavar="BETA",
        help="the same per image and view; 'auto' is what serves images best that are left out",
    )
    parser.add_argument("--reads", help="what gap_ridge reads of the target: features, if it has any, or logits")
    parser.add_argument("--device", default="cpu", help="where transmiter sums the moments (default: cpu)")
    parser.add_argument("--overwrite", action="store_true", help="replace files of these names")
    return parser


def _method(options: argparse.Namespace) -> str:
    if options.adapter is None and options.source_tuned is None:
        raise ConfigError("vimlight transfer needs --source-tuned, for a gap ridge, or --adapter, to move that")
    return "gap_ridge" if options.adapter is None else "transmiter"


def _check_options(options: argparse.Namespace) -> None:
    needed, foreign = "adapter", ["source_tuned", "reads"]
    if options.method == "gap_ridge":
        needed, foreign = "source_tuned", ["adapter", "beta", "beta_per_sample"]
    if getattr(options, needed) is None:
        raise ConfigError(f"vimlight transfer --method {options.method} needs --{_dashed(needed)}")
    given = [name for name in foreign if getattr(options, name) is not None]
    if given:
        raise ConfigError(f"--{_dashed(given[0])} is no option of --method {options.method}; leave it out")
    if options.beta is not None and options.beta_per_sample is not None:
        raise ConfigError("--beta and --beta-per-sample exclude each other; give one of them")
    if len(options.out) != len(options.target):
        raise ConfigError(f"{len(options.target)} targets need as many --out files, got {len(options.out)}")


def _check_files(options: argparse.Namespace) -> list[Any]:
    """Checks before any work that every result can be written."""
    from vimlight.files.atomic import refuse_existing
    from vimlight.transmiter.adapters.file import check_path

    files = [check_path(path) for path in options.out]
    for number, file in enumerate(files):
        if file in files[:number]:
            raise ConfigError(f"--out names {str(file)!r} twice; every target needs a file of its own")
        refuse_existing(file, options.overwrite, "--overwrite")
    return files


def _transmiter(options: argparse.Namespace) -> Sequence[Adapter]:
    import torch

    from vimlight.progress import track
    from vimlight.transmiter.adapters import TransMiter
    from vimlight.transmiter.moving.alignment import BATCH_SIZE, BETA, align_all, choose_beta

    try:
        adapter = TransMiter.load(options.adapter).to(options.device)
    except RuntimeError as error:
        raise ConfigError(f"--device {options.device!r}: {str(error).splitlines()[0]}") from error
    source, targets = _open(options.source), [_open(path) for path in options.target]
    batches = -(-len(source) * source.num_views // BATCH_SIZE)
    beta = BETA if options.beta is None else options.beta
    move = partial(align_all, adapter, source, progress=lambda items: track(items, "rows", batches > 1, batches))
    with torch.inference_mode():
        if options.beta_per_sample == "auto":
            return [move([target], beta_per_sample=choose_beta(source, target))[0] for target in targets]
        return move(targets, beta, options.beta_per_sample)


def _gap_ridge(options: argparse.Namespace) -> Sequence[Adapter]:
    from vimlight.transmiter.adapters.gap_ridge import fit_gap_ridge

    source, tuned = _open(options.source), _open(options.source_tuned)
    targets = [_open(path) for path in options.target]
    reads = [options.reads or ("logits" if target.width is None else "features") for target in targets]
    return [fit_gap_ridge(source, tuned, target, reads=read) for target, read in zip(targets, reads, strict=True)]


_METHODS: dict[str, Callable[[argparse.Namespace], Sequence[Adapter]]] = {
    "transmiter": _transmiter,
    "gap_ridge": _gap_ridge,
}


def _report(options: argparse.Namespace, adapters: Sequence[Adapter], files: Sequence[Any], seconds: float) -> None:
    rows = []
    for adapter, file in zip(adapters, files, strict=True):
        step = adapter.card.history[-1]
        facts = [f"{name.replace('_', ' ')} {_value(step[name])}" for name in _FACTS[options.method] if name in step]
        rows.append((str(file), adapter.card.model, "; ".join(facts)))
    print_table(("adapter", "for", f"made in {seconds:.1f} s"), rows)
    for adapter, file in zip(adapters, files, strict=True):
        doubt = _doubt(adapter)
        if doubt:
            print(f"{file}: not expected to help: of images left out {doubt}")


def _doubt(adapter: Adapter) -> str:
    """Returns why an adapter is not expected to help, by what was noted when it was made, or nothing."""
    noted = {key: value for step in adapter.card.history for key, value in step.items()}
    told, agreement = noted.get("explained_left_out", 1.0), noted.get("agreement_left_out")
    if told < _TELLS:
        return f"it tells {told:.1%} of what fine-tuning changed"
    if agreement and agreement["adapter"] <= agreement["zero_shot"]:
        return "it agreed with the fine-tuned model no more than the zero-shot model did"
    return ""


def _value(value: Any) -> str:
    if isinstance(value, dict):
        return " -> ".join(_value(item) for item in value.values())
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def _open(path: str) -> LogitCache:
    from vimlight.transmiter import LogitCache

    return LogitCache.open(path)


def _beta(text: str) -> float | str:
    return text if text == "auto" else float(text)


def _dashed(name: str) -> str:
    return name.replace("_", "-")
