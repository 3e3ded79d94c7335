"""`vimlight cache`: build, import, look into, check, merge, re-head and tune logit caches."""

from __future__ import annotations

import argparse
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vimlight.commands.beforehand import check_caches, check_file, check_images
from vimlight.commands.options import Parser
from vimlight.commands.output import one_line, print_json, print_table
from vimlight.errors import ConfigError, DataError, unknown_name
from vimlight.files.text import is_file

if TYPE_CHECKING:
    from vimlight.transmiter import LogitCache
    from vimlight.transmiter.cache.heads import Vocabulary

__all__ = ["main"]

_TEXT = "Logit caches: what an image-text model says of every image of a split, on disk, whole or absent."
_BUILD = "run a model over the images of a data set (a config file; see vimlight cache build --help)"


def main(arguments: Sequence[str]) -> None:
    """Runs `vimlight cache`.

    Args:
        arguments: The command line behind `vimlight cache`.

    Raises:
        VimlightError: If the command line, a file or a cache is not as it should be.
        SystemExit: With 1 if `verify` finds a problem, with 0 behind `--help`.
    """
    if arguments[:1] == ["build"]:
        check_images(arguments[1:])
        from vimlight.commands.cache_build import main as build

        build(arguments[1:])
        return
    parser, commands = _parsers()
    if arguments and not arguments[0].startswith("-") and arguments[0] not in commands:
        raise unknown_name("command of vimlight cache", arguments[0], commands)
    options = parser.parse_args(arguments)
    options.run(options)


def _parsers() -> tuple[Parser, Iterable[str]]:
    parser = Parser(prog="vimlight cache", description=_TEXT)
    commands = parser.add_subparsers(metavar="COMMAND", required=True, dest="command", parser_class=Parser)

    def command(name: str, run: Any, text: str) -> argparse.ArgumentParser:
        sub = commands.add_parser(name, help=text, description=text)
        sub.set_defaults(run=run)
        return sub

    command("build", None, _BUILD)
    _import_options(command("import", _import, "make a cache of features or logits that you have in files"))
    info = command("info", _info, "show what a cache holds and what its numbers depend on")
    verify = command("verify", _verify, "read every file and compare it with the manifest; exit code 1 if one is bad")
    merge = command("merge", _merge, "join caches of one model: other images, or other classes for the same images")
    _head_options(command("head", _head, "other classes or prompts for stored features; no image is touched"))
    _tuned_options(command("tuned", _tuned, "the cache of a fine-tuned model, from another tool's file"))
    info.add_argument("cache", metavar="CACHE")
    info.add_argument("--json", action="store_true", help="print JSON")
    verify.add_argument("caches", metavar="CACHE", nargs="+")
    merge.add_argument("caches", metavar="CACHE", nargs="+")
    merge.add_argument("--split", help="what the new split is called (default: the old ones, joined by +)")
    _out_options(merge)
    return parser, commands.choices


def _out_options(sub: argparse.ArgumentParser) -> None:
    sub.add_argument("--out", metavar="DIR", required=True, help="the new cache")
    sub.add_argument("--overwrite", action="store_true", help="replace a cache of that name")


def _import_options(sub: argparse.ArgumentParser) -> None:
    kinds = ".npy, .npz, .safetensors, .pt, .csv or .parquet; FILE:KEY for one of several arrays"
    sub.add_argument("--features", metavar="FILE", help=f"image features, (N, E) or (N, views, E): {kinds}")
    sub.add_argument("--head", metavar="FILE", help="text features of the classes, (M, E), with --features")
    sub.add_argument("--logits", metavar="FILE", help="bare logits instead, (N, M) or (N, views, M)")
    sub.add_argument("--classes", metavar="FILE", help="task classes, one a line (default: those in the file)")
    sub.add_argument("--aux", metavar="FILE", help="auxiliary classes, one a line; their columns come last")
    sub.add_argument("--labels", metavar="FILE", help="class indices or names of the images")
    sub.add_argument("--ids", metavar="FILE", help="names of the images, one a line (default: column id, or numbers)")
    sub.add_argument("--scale", type=float, default=100.0, help="factor of the cosines (default: 100)")
    sub.add_argument("--bias", type=float, default=0.0, help="what is added to them (default: 0)")
    sub.add_argument("--split", required=True, help="name of the split, such as train")
    sub.add_argument("--model", default="imported", help="name of the model (default: imported)")
    sub.add_argument(
        "--partition",
        metavar="NAME=CLASSES",
        action="append",
        default=[],
        help="a named set of classes, such as base=0-4 or novel=cat,dog",
    )
    _out_options(sub)


def _head_options(sub: argparse.ArgumentParser) -> None:
    sub.add_argument("cache", metavar="CACHE")
    sub.add_argument("--classes", metavar="FILE", help="task classes, one a line (default: those it has)")
    sub.add_argument("--by-position", action="store_true", help="they are new words for the same classes in order")
    sub.add_argument("--templates", nargs="+", metavar="TEXT", help="prompts with {}, or openai, or simple")
    sub.add_argument("--aux-templates", nargs="+", metavar="TEXT", help="the same for auxiliary classes")
    sub.add_argument("--aux", metavar="FILE", help="auxiliary classes, one a line, or a cache that has them")
    sub.add_argument("--num-logits", type=int, help="draw auxiliary classes up to so many columns in all")
    sub.add_argument("--strategy", default="random", help="random, farthest_point, hard or highest_spread")
    sub.add_argument("--seed", type=int, default=0, help="seed of the draw (default: 0)")
    sub.add_argument("--words", metavar="FILE", help="word list to draw from (default: the names of ImageNet-21k)")
    sub.add_argument("--head", metavar="FILE", help="text features (M, E) of all classes, instead of encoding them")
    sub.add_argument("--device", default="auto", help="where to encode them: auto, cpu or cuda (default: auto)")
    _out_options(sub)


def _tuned_options(sub: argparse.ArgumentParser) -> None:
    sub.add_argument("cache", metavar="CACHE", help="the zero-shot cache, of vimlight cache build")
    sub.add_argument("file", metavar="FILE", help="CLIP-LoRA's .pt, CoOp's checkpoint, or tuned text features")
    sub.add_argument("--batch-size", type=int, default=256, help="images at a time, where they are read (default: 256)")
    sub.add_argument("--num-workers", type=int, default=0, help="processes that read them (default: 0)")
    sub.add_argument("--device", default="auto", help="where to encode them: auto, cpu or cuda (default: auto)")
    _out_options(sub)


def _import(options: argparse.Namespace) -> None:
    names = ("features", "logits", "head", "classes", "aux", "labels", "ids")
    _check_inputs([path for name in names if (path := getattr(options, name)) is not None])
    from vimlight.transmiter.cache.imports import ImportFiles, import_cache

    cache = import_cache(
        options.out,
        ImportFiles(**{name: getattr(options, name) for name in names}),
        split=options.split,
        model=options.model,
        scale=options.scale,
        bias=options.bias,
        partitions=dict(map(_partition, options.partition)),
        overwrite=options.overwrite,
    )
    print(_summary(cache))


def _info(options: argparse.Namespace) -> None:
    cache = _open(options.cache)
    fields = _fields(cache)
    if options.json:
        print_json(fields)
    else:
        print_table(("field", "value"), [(key, _shortened(value)) for key, value in fields.items() if _says(value)])


def _verify(options: argparse.Namespace) -> None:
    from vimlight.progress import track

    caches = [_open(path) for path in options.caches]
    checked = [(str(cache.path), cache.verify()) for cache in track(caches, "caches", len(caches) > 1)]
    problems = [(path, text) for path, found in checked for text in found]
    if problems:
        print_table(("cache", "problem"), problems)
        raise SystemExit(1)
    print(f"caches checked: {len(caches)}, all of them whole")


def _merge(options: argparse.Namespace) -> None:
    check_caches(options.caches)
    from vimlight.transmiter.cache.merge import merge_caches

    caches = [_open(path) for path in options.caches]
    print(_summary(merge_caches(caches, options.out, split=options.split, overwrite=options.overwrite)))


def _head(options: argparse.Namespace) -> None:
    check_caches([options.cache])
    _check_inputs([path for path in (options.classes, options.head, options.words) if path is not None])
    from vimlight.devices import device_of
    from vimlight.transmiter.cache.derive import with_head
    from vimlight.transmiter.cache.heads import encoded_head
    from vimlight.transmiter.cache.imports import read_head
    from vimlight.transmiter.cache.tables import read_names

    cache = _open(options.cache)
    names = read_names(options.classes) if options.classes else list(cache.class_names)
    changes: dict[str, Any] = {"by_position": options.by_position, "overwrite": options.overwrite}
    if options.head is not None:
        aux = cache.aux_names if options.aux is None else read_names(options.aux)
        head = read_head(options.head, cache.manifest.scale or 100.0, cache.manifest.bias or 0.0)
        made = with_head(cache, options.out, head, class_names=names, aux_names=aux, **changes)
    else:
        prompts = (options.templates, options.aux_templates)
        device = device_of(options.device)
        head, entries = encoded_head(cache, names, _vocabulary(options), *prompts, device=device, progress=True)
        made = with_head(cache, options.out, head, class_names=names, **entries, **changes)
    print(_summary(made))


def _tuned(options: argparse.Namespace) -> None:
    check_caches([options.cache])
    check_file("file", options.file, DataError)
    from vimlight.devices import device_of
    from vimlight.transmiter.sources.files import load_tuned
    from vimlight.transmiter.sources.writing import write_tuned

    cache = _open(options.cache)
    found = load_tuned(options.file, cache)
    made = write_tuned(
        found.tuning.to(device_of(options.device)).eval(), cache, Path(options.out).expanduser(),
        name=f"{cache.model}+{found.kind}", facts={"method": found.kind, **found.facts}, batch_size=options.batch_size,
        num_workers=options.num_workers, overwrite=options.overwrite, progress=True,
    )  # fmt: skip
    print(f"read {one_line(found.facts)} as {found.kind}")
    print(_summary(made))


def _check_inputs(paths: Sequence[str]) -> None:
    for path in paths:
        # FILE:KEY names one of several arrays.
        file = path.rpartition(":")[0]
        check_file("file", file if file and is_file(Path(file)) else path, DataError)


def _vocabulary(options: argparse.Namespace) -> Vocabulary | None:
    """Returns how auxiliary classes are chosen, or none to keep those that are there."""
    from vimlight.transmiter.cache.heads import Vocabulary

    if options.aux is None and options.num_logits is None:
        return None
    words = {} if options.words is None else {"words": options.words}
    return Vocabulary(options.num_logits, options.strategy, options.seed, names=options.aux, **words)


def _open(path: str) -> LogitCache:
    from vimlight.transmiter import LogitCache

    return LogitCache.open(path)


def _partition(text: str) -> tuple[str, str]:
    name, equals, classes = text.partition("=")
    if not equals or not name or not classes:
        raise ConfigError(f"--partition {text!r}: expected NAME=CLASSES, such as base=0-4")
    return name, classes


def _summary(cache: LogitCache) -> str:
    views = f" in {cache.num_views} views" if cache.num_views > 1 else ""
    what = "bare logits" if cache.width is None else f"features of width {cache.width}"
    labels = "labelled" if cache.labels is not None else "not labelled"
    return (
        f"{cache.path}: {what} of {len(cache)} images{views}, {labels}; {cache.num_classes} task classes and "
        f"{len(cache.aux_names)} auxiliary ones"
    )


def _fields(cache: LogitCache) -> dict[str, Any]:
    import dataclasses

    manifest = dataclasses.asdict(cache.manifest)
    files = manifest.pop("files")
    size = sum(entry["bytes"] for entry in files.values())
    return {
        **manifest,
        "num_classes": cache.num_classes,
        "num_logits": cache.num_logits,
        "images_per_class": cache.images_per_class(),
        "files": {name: entry["bytes"] for name, entry in files.items()},
        "bytes": size,
        "hash": cache.hash,
    }


def _says(value: Any) -> bool:
    return value not in ("", None) and not (isinstance(value, (list, dict, tuple)) and not value)


def _shortened(value: Any, limit: int = 12) -> str:
    if isinstance(value, (list, tuple)) and len(value) > limit:
        return f"{one_line(value[:limit])}, ... ({len(value)} in all)"
    if isinstance(value, dict) and len(value) > limit:
        first = dict(list(value.items())[:limit])
        return f"{one_line(first)}, ... ({len(value)} in all)"
    return one_line(value)
