"""A module as one file that runs without this package: a traced program, or ONNX, each with a card inside."""

from __future__ import annotations

import importlib.util
import io
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, redirect_stderr
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.export import Dim, ExportedProgram
from torch.utils import _pytree

from vimlight.errors import ExportError
from vimlight.quiet import quiet

__all__ = [
    "CARD", "CARD_VERSION", "Packed", "can_run_onnx", "deviation", "loaded_onnx", "loaded_program", "onnx_bytes",
    "packed_onnx", "packed_program", "program_bytes", "trace",
]  # fmt: skip

# Name of the card in a file's metadata.
CARD = "vimlight.json"
# Of the card, which says it under "format_version", for whoever runs the file.
CARD_VERSION = 1
_LARGEST_BATCH = 1 << 16
# A file's limit of 2 GiB, with room for the graph beside the weights.
_LARGEST_ONNX = (1 << 31) - (1 << 24)
# Later ones return from some operators, and leave in a model, what the exporter of that torch does not expect.
_FOR_TORCH_2_6 = "'onnxscript<0.5.4' 'onnx-ir<0.1.16'"


class Packed(NamedTuple):
    """The content of a file.

    Attributes:
        content: Its bytes.
        run: From images to the answers of that content; nothing where it cannot be run here.
    """

    content: bytes
    run: Callable[[Tensor], Any] | None


def packed_onnx(program: ExportedProgram, card: str, output: str, opset: int | None = None) -> Packed:
    """Returns an ONNX file with a card under `vimlight` in its metadata; see `onnx_bytes`."""
    content = onnx_bytes(program, {"vimlight": card}, output, opset)
    return Packed(content, loaded_onnx(content) if can_run_onnx() else None)


def packed_program(program: ExportedProgram, card: str) -> Packed:
    """Returns a file for `torch.export.load` with a card; see `program_bytes`."""
    content = program_bytes(program, card)
    return Packed(content, loaded_program(content))


@torch.no_grad()
def trace(module: nn.Module, images: Tensor) -> ExportedProgram:
    """Traces a module of one input whose first dimension is the batch.

    Args:
        module: A module in eval mode.
        images: Two or more examples, `(N, ...)`.

    Returns:
        A program for batches of any size.

    Raises:
        ExportError: If the module does something that cannot be traced.
    """
    batch = Dim("batch", min=1, max=_LARGEST_BATCH)
    try:
        with _quiet():
            return torch.export.export(module, (images,), dynamic_shapes=({0: batch},), strict=False)
    except Exception as error:  # Whatever the module's own code raises on tensors without values.
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise ExportError(f"the model cannot be traced by torch.export: {reason}") from error


def program_bytes(program: ExportedProgram, card: str) -> bytes:
    """Returns the content of a file for `torch.export.load`, the card as its extra file `vimlight.json`.

    Args:
        program: The traced module.
        card: A JSON text.
    """
    buffer = io.BytesIO()
    with _quiet():
        torch.export.save(program, buffer, extra_files={CARD: card})
    return buffer.getvalue()


def onnx_bytes(program: ExportedProgram, card: Mapping[str, str], output: str, opset: int | None = None) -> bytes:
    """Returns the content of an ONNX file with one input, a free batch dimension, and the card as its metadata.

    The weights are inside, so that the file loads wherever it is moved to; torch's own `torch.onnx.export` writes them
    to a second file beside it.

    Args:
        program: The traced module.
        card: Texts by key.
        output: Name of the first output; further ones are numbered.
        opset: Version of the operator set; the exporter's own if left out.

    Raises:
        ExportError: If the exporter is missing, refuses the program or the version, or the file would pass 2 GiB.
    """
    size = sum(value.nbytes for value in _leaves([program.state_dict, program.constants]))
    if size > _LARGEST_ONNX:
        raise ExportError(
            f"an ONNX file holds at most 2 GiB and the weights take {size / 2**30:.1f}; write a program of "
            "torch.export instead (suffix .pt2)"
        )
    count = len(program.graph_signature.user_outputs)
    names = [output, *(f"{output}_{number}" for number in range(1, count))]
    try:
        with _quiet():
            made = torch.onnx.export(program, dynamo=True, verbose=False, output_names=names, opset_version=opset)
    except (ImportError, torch.onnx.OnnxExporterError, ValueError, RuntimeError) as error:
        if isinstance(error, ImportError) or "No module named" in str(error.__cause__ or error):
            raise ExportError("ONNX needs onnxscript; install it with: pip install 'vimlight[onnx]'") from error
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        older = f"; torch 2.6 exports with: pip install {_FOR_TORCH_2_6}" if torch.__version__ < "2.7" else ""
        raise ExportError(f"torch's exporter to ONNX refuses the model: {reason}{older}") from error
    assert made is not None
    reached = made.model.opset_imports[""]
    if opset not in (None, reached):
        raise ExportError(f"the model cannot be had in ONNX's opset {opset}; the nearest is {reached}")
    graph = made.model.graph
    for value in (*graph.inputs, *graph.outputs):
        value.shape[0] = "batch"  # type: ignore[index]  # a shape of one dimension or more
    made.model.metadata_props.update(card)
    content: bytes = made.model_proto.SerializeToString()
    return content


def loaded_program(content: bytes) -> Callable[[Tensor], Any]:
    """Loads the content of a file of `program_bytes`.

    Args:
        content: The content.

    Returns:
        From images `(N, ...)` to its answers.
    """
    with _quiet():
        return torch.export.load(io.BytesIO(content)).module()


def can_run_onnx() -> bool:
    """Tells whether onnxruntime is installed."""
    return importlib.util.find_spec("onnxruntime") is not None


def loaded_onnx(content: bytes) -> Callable[[Tensor], list[Tensor]]:
    """Loads the content of an ONNX file into onnxruntime on the CPU.

    Args:
        content: The content.

    Returns:
        From images `(N, ...)` to the outputs, in order.
    """
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])

    def run(images: Tensor) -> list[Tensor]:
        found = session.run(None, {session.get_inputs()[0].name: images.cpu().numpy()})
        return [torch.from_numpy(array) for array in found]

    return run


def deviation(found: Any, expected: Any) -> float:
    """Returns the largest difference of two outputs; of values beyond 1, relative to the largest.

    Args:
        found: Tensors, nested as they like.
        expected: As many, of the same shapes.
    """
    differences = []
    for one, other in zip(_leaves(found), _leaves(expected), strict=True):
        one, other = one.double().cpu(), other.double().cpu()
        scale = other.abs().nan_to_num(0, 0, 0).max().clamp_min(1.0)
        # Equal infinities do not differ.
        differences.append((one - other).abs().masked_fill(one == other, 0).max() / scale)
    # Unlike Python's, torch's maximum is NaN where one of them is.
    return float(torch.stack(differences).max())


def _leaves(outputs: Any) -> list[Tensor]:
    """Returns the tensors of an output, which may be nested, in order."""
    return [leaf for leaf in _pytree.tree_leaves(outputs) if isinstance(leaf, Tensor)]


@contextmanager
def _quiet() -> Iterator[None]:
    """Keeps the exporters' progress and hints to themselves."""
    # Torch prints the half of a graph that it could trace.
    with quiet("torch.onnx", "torch.export", "torch.fx", "onnxscript"), redirect_stderr(io.StringIO()):
        yield
