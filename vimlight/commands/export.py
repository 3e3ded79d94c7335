"""`vimlight export`: a trained downstream model as one file that runs without vimlight."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from vimlight.commands.beforehand import check_file
from vimlight.commands.options import Parser
from vimlight.commands.output import print_table
from vimlight.errors import CheckpointError, unknown_name

__all__ = ["main"]

_TEXT = """Writes the model of a run of `vimlight fit` as one file: gates folded, modules fused, no hooks and no zoo.
Images in (prepared as the file's card says), logits or predictions out. The file's answers are compared with the
trained model's before it appears."""


def main(arguments: Sequence[str]) -> None:
    """Runs `vimlight export`.

    Args:
        arguments: The command line behind `vimlight export`.

    Raises:
        VimlightError: If the command line, the checkpoint, its config or the zoo is not as it should be, or the format
            cannot hold the model.
        SystemExit: With 0 behind `--help`.
    """
    options = _parser().parse_args(arguments)
    check_file("checkpoint", options.ckpt, CheckpointError)
    if options.config is not None:
        check_file("config", options.config)
    from vimlight.deployment import FORMATS

    if options.format is not None and options.format not in FORMATS:
        raise unknown_name("export format", options.format, FORMATS)
    from vimlight.deployment import deploy, load_run
    from vimlight.deployment.formats import format_of
    from vimlight.files.atomic import refuse_existing

    file = Path(options.out).expanduser()
    chosen = format_of(file, options.format)
    refuse_existing(file, options.overwrite, "--overwrite")
    deployed = deploy(load_run(options.ckpt, options.config, options.zoo), options.outputs)
    difference = deployed.save(file, options.format, overwrite=options.overwrite, opset=options.opset)
    said = "not run: onnxruntime is missing" if difference is None else f"{difference:.1e}"
    size, classes = f"{file.stat().st_size / 1e6:.1f}", str(len(deployed.card["classes"]))
    print_table(
        ("file", "format", "MB", "classes", "outputs", "largest difference"),
        [(str(file), chosen.title, size, classes, options.outputs, said)],
    )


def _parser() -> argparse.ArgumentParser:
    parser = Parser(prog="vimlight export", description=_TEXT)
    parser.add_argument("--ckpt", metavar="FILE", required=True, help="checkpoint of a run, config.yaml above it")
    parser.add_argument("--out", metavar="FILE", required=True, help="a new .onnx, .pt2 or .safetensors file")
    parser.add_argument("--format", help="onnx, torch_export, or timm: the weights of a timm classifier, where all "
                        "modules fold into the backbone (default: by the suffix)")  # fmt: skip
    parser.add_argument("--outputs", default="logits", help="logits, or predictions (probabilities, ...)")
    parser.add_argument("--config", metavar="FILE", help="the run's config, if it is no longer beside the checkpoint")
    parser.add_argument("--zoo", metavar="DIR", help="the zoo, if it is no longer where the config says")
    parser.add_argument("--opset", type=int, metavar="N", help="version of ONNX's operator set (default: torch's)")
    parser.add_argument("--overwrite", action="store_true", help="replace a file of that name")
    return parser
