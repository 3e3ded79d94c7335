"""`python -m benchmarks.architectures`: writes the table of what plug-ins reach in every module of timm."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import torch

from benchmarks.architecture_table import ARCHITECTURES
from vimlight.backbone import Backbone, create_backbone
from vimlight.errors import PluginError
from vimlight.plugins import list_plugins
from vimlight.plugins.base import choose_sites

__all__ = ["FILE", "row", "small_backbone"]

FILE = Path(__file__).with_name("ARCHITECTURES.md")
_INTRODUCTION = """# What plug-ins reach in every architecture

Written by `python -m benchmarks.architectures`; a test checks that it is current. One small model of every module of
`timm.list_modules()`, with random weights. *blocks*: residual blocks. *branches*: attention and MLP branches.
*layers*: linear, convolution and norm layers. *grid*: blocks of whose positions the places in the image are certain, by
comparison with the maps that timm itself gives or with what a convolution of the model takes. *maps*: how many of
timm's maps the readout `maps` can give. Behind them: how many blocks each type of plug-in reaches by default; `-` where
it is refused.

No module is refused. Refused are models that give no vector for an image: the encoders of `deepseek_vit`,
`gemma4_vit`, `mobilenetv5` and `qwen3_vit` (names ending in `_enc`) and any model with `global_pool: ''`. Blocks are
left out where a plug-in would be wrong or could do nothing:

* `convpass` needs a grid, which blocks of class attention (CaiT, CrossViT, XCiT) do not have.
* `lora` and `repadapter` need a layer that mixes channels; some blocks of iFormer are one depthwise convolution.
* `repadapter` works in groups of channels: not on the three channels of an image, nor on any other odd width.

"""


def small_backbone(module: str, size: tuple[int, int] | None = None) -> Backbone:
    """Creates the small model of a module, with random weights.

    Args:
        module: A module of timm.
        size: Height and width of its images; the square one if left out.
    """
    name, arguments, sizes = ARCHITECTURES[module]
    return create_backbone(name, **{"img_size": size or sizes[0], **arguments})


def row(module: str, backbone: Backbone) -> str:
    """Returns a module's row of the table.

    Args:
        module: A module of timm.
        backbone: Its small model.
    """
    sites, blocks = backbone.all_sites, backbone.blocks
    image = torch.zeros(1, 3, *backbone.preprocessing.size)
    with torch.no_grad():
        offered = len(backbone.model.forward_intermediates(image, intermediates_only=True))  # type: ignore[operator]
    return _line(
        [
            module,
            backbone.name,
            *map(str, (len(blocks), len(sites.branches), len(sites.layers))),
            str(sum(block.layout.has_grid for block in blocks)),
            f"{len(sites.maps)}/{offered}",
            *(_reached(kind, backbone) for kind in list_plugins()),
        ]
    )


def _reached(kind: str, backbone: Backbone) -> str:
    try:
        sites = choose_sites(kind, backbone)
    except PluginError:
        return "-"
    return str(len({site.depth for site in sites if 0 <= site.depth < len(backbone.blocks)}))


def _line(cells: Iterable[str]) -> str:
    return f"| {' | '.join(cells)} |"


def main() -> None:
    """Writes the table."""
    names = ["module", "model", "blocks", "branches", "layers", "grid", "maps", *list_plugins()]
    head = [_line(names), _line(["---", "---", *["---:"] * (len(names) - 2)])]
    rows = (row(module, small_backbone(module)) for module in ARCHITECTURES)
    FILE.write_text(_INTRODUCTION + "\n".join([*head, *rows]) + "\n")
    print(f"wrote {FILE}")


if __name__ == "__main__":
    main()
