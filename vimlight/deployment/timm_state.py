"""A deployed model as the weights of a timm classifier, where every module folds into the backbone."""

from __future__ import annotations

import copy
import json
from typing import Any

import torch
from safetensors.torch import load, save
from torch import Tensor, nn
from torch.func import functional_call

from vimlight.deployment.fixing import Fixed
from vimlight.deployment.formats import Format, Packable, Packed
from vimlight.deployment.registry import FORMATS
from vimlight.errors import ExportError
from vimlight.tasks import AffineHead

__all__ = ["timm_classifier"]


@torch.no_grad()
def timm_classifier(deployed: Packable) -> nn.Module:
    """Makes the timm model, with a classifier, that answers as a deployed model does.

    Its `pretrained_cfg` describes the images as they were prepared, so that `timm.data.resolve_model_data_config` gives
    what the card says.

    Args:
        deployed: The deployed model, of logits.

    Raises:
        ExportError: If a module does not fold into the backbone, or the head is not what timm's classifier is.
    """
    fixed, head = _parts(deployed)
    network = copy.deepcopy(fixed.backbone.model)
    network.reset_classifier(len(head.bias))  # type: ignore[operator]  # every timm model has it
    classifier = network.get_classifier()  # type: ignore[operator]
    if not isinstance(classifier, nn.Linear) or classifier.in_features != head.weight.shape[1]:
        raise ExportError(f"the classifier of {fixed.backbone.name!r} is not one linear layer; export to onnx")
    weight = head.weight.double() / head.scale.double()
    classifier.weight.copy_(weight)
    classifier.bias.copy_(head.bias.double() - weight @ head.mean.double())
    # nn.Module is typed to hold tensors and modules alone.
    vars(network)["pretrained_cfg"] = {**vars(network)["pretrained_cfg"], **_pretrained_cfg(deployed)}
    return network.eval()


def _pretrained_cfg(deployed: Packable) -> dict[str, Any]:
    """Returns what the card says, by the names that timm has for it."""
    looks = dict(deployed.card["preprocessing"])
    return {"input_size": [3, *looks.pop("size")], **looks, "num_classes": len(deployed.card["classes"])}


def _parts(deployed: Packable) -> tuple[Fixed, AffineHead]:
    model, card = deployed.model, deployed.card
    fixed, head = getattr(model, "aggregator", None), getattr(model, "head", None)
    if not isinstance(fixed, Fixed):
        raise ExportError(
            f"{card['aggregator'] or type(model).__name__!r} is no fixed sum in one pass, so a timm model cannot hold "
            "it; export to onnx"
        )
    if fixed.slots:
        raise ExportError(
            f"the {fixed.kinds[0].__name__} modules at {fixed.slots[0].site.name!r} do not fold into the weights, so a "
            "timm model cannot hold them; export to onnx"
        )
    if fixed.new_biases:
        raise ExportError(
            f"the modules need a bias at {fixed.new_biases[0]!r}, which {fixed.backbone.name!r} has none of in timm; "
            "export to onnx"
        )
    if fixed.readout != "last" or not isinstance(head, AffineHead):
        raise ExportError(
            f"timm's classifier reads the last feature, this head reads {fixed.readout!r}; train with readout: last, "
            "or export to onnx"
        )
    if card["outputs"] != "logits":
        raise ExportError(f"a timm model returns logits, not {card['outputs']}; export to onnx")
    return fixed, head


def _timm(deployed: Packable, opset: int | None) -> Packed:
    if opset is not None:
        raise ExportError("an opset is ONNX's; leave it out for timm")
    network = timm_classifier(deployed)
    tensors = {name: tensor.contiguous().clone() for name, tensor in network.state_dict().items()}
    about = {"pretrained_cfg": json.dumps(_pretrained_cfg(deployed)), "vimlight": deployed.card_text()}
    content = save(tensors, {"format": "pt", **about})

    def run(images: Tensor) -> Any:
        return functional_call(network, load(content), (images,))

    return Packed(content, run)


FORMATS.register("timm")(Format(".safetensors", "timm classifier", _timm))
