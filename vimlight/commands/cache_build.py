"""`vimlight cache build`: a config file, every key of which is also a flag."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from jsonargparse import ArgumentParser, Namespace

from vimlight.commands.catalogue import with_data
from vimlight.commands.keys import Keys, arguments_of, typed_keys
from vimlight.commands.mistakes import Mistake, Raising, explain
from vimlight.data import DownstreamDataModule, ImageDataModule, MidstreamDataModule
from vimlight.devices import device_of
from vimlight.errors import ConfigError
from vimlight.transmiter.cache.build import CacheSettings, build_cache
from vimlight.transmiter.cache.heads import Vocabulary
from vimlight.transmiter.cache.processes import process_group, rank
from vimlight.transmiter.models.image_text import load_model
from vimlight.trust import check_made, guard_parsers

__all__ = ["main"]

_TEXT = "Runs an image-text model over the images of a data set; goes on where an interrupted run stopped."


@dataclass(frozen=True)
class Model:
    """Which model.

    Attributes:
        name: A model of open_clip (ViT-B-16), hf-hub:owner/model, local-dir:path, vit_scenes_small or vit_scenes_base.
        pretrained: Tag or file of the weights, for the names of open_clip.
        checkpoint: Fine-tuned weights of the same model, loaded on top.
        tag: The published weights that a file holds or descends from, if it does not tell; decides activation and
            preprocessing.
    """

    name: str
    pretrained: str | None = None
    checkpoint: str | None = None
    tag: str | None = None


class BuildParser(Raising, ArgumentParser):
    """A parser whose errors are raised, to be shortened."""


@dataclass(frozen=True)
class Run:
    """How to run it.

    Attributes:
        out: Directory of the cache; {split} in it stands for the split's name.
        split: train, val, test or predict, or a list of them.
        precision: 32, or 16 or bf16 for automatic mixed precision; auto for bf16 where the hardware multiplies in it.
        device: auto, cpu, cuda or cuda:1.
        overwrite: Whether caches of that name are replaced.
        progress: Whether to show progress bars.
    """

    out: str
    split: str | list[str] = "train"
    precision: str = "32"
    device: str = "auto"
    overwrite: bool = False
    progress: bool = True


def main(arguments: Sequence[str]) -> None:
    """Runs `vimlight cache build`.

    Args:
        arguments: The command line behind it.

    Raises:
        VimlightError: If the config, the data or the model is not as it should be.
        SystemExit: With 0 behind `--help`.
    """
    guard_parsers()
    parser = _parser()
    try:
        config = parser.parse_args(list(arguments))
    except Mistake as mistake:
        raise ConfigError(explain(str(mistake), _keys(), typed_keys(arguments))) from mistake
    check_made(config)
    with process_group():
        _run(config, parser.instantiate_classes(config))


def _keys() -> Keys:
    top = arguments_of(Run, CacheSettings)
    named = {"": {"": ["config", "model", "data"], **top}, "model": arguments_of(Model)}
    keys = Keys({**named, "vocabulary": arguments_of(Vocabulary)})
    return with_data(keys, (DownstreamDataModule, MidstreamDataModule))


def _parser() -> BuildParser:
    parser = BuildParser(prog="vimlight cache build", description=_TEXT, allow_abbrev=False)
    parser.add_argument("--config", action="config", help="a YAML file with the keys below")
    parser.add_class_arguments(Model, "model", as_group=True)
    parser.add_subclass_arguments(ImageDataModule, "data", required=True)
    parser.add_class_arguments(Run, as_group=True)
    parser.add_class_arguments(CacheSettings, skip={"split"}, as_group=True)
    return parser


def _run(config: Namespace, made: Namespace) -> None:
    splits = [config.split] if isinstance(config.split, str) else list(config.split)
    if len(splits) > 1 and "{split}" not in config.out:
        raise ConfigError(f"out: {config.out!r} must have {{split}} in it, since there are {len(splits)} splits")
    model = load_model(**vars(config.model))
    model.to(device_of(config.device), config.precision)
    common = {name: getattr(made, name) for name in vars(CacheSettings()) if name != "split"}
    for split in splits:
        settings = CacheSettings(split=split, **common)
        path = config.out.replace("{split}", split)
        cache = build_cache(path, model, made.data, settings, overwrite=config.overwrite, progress=config.progress)
        if rank() == 0:
            print(f"{cache.path}: {len(cache)} images, {cache.num_classes} task classes, {len(cache.aux_names)} others")
