"""LoRA adapters of PEFT on a timm model: a folder with `adapter_config.json` and `adapter_model.safetensors`.

PEFT itself is not needed. What a zoo's `lora` module cannot say is refused by name, on the way in and on the way out.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from vimlight.backbone import build_backbone, create_backbone
from vimlight.errors import CheckpointError
from vimlight.interop.base import Fact, Format, add_module, described
from vimlight.interop.peft.reading import read
from vimlight.interop.peft.writing import write
from vimlight.interop.registry import FORMATS
from vimlight.zoo import Zoo

__all__ = ["PeftFolder", "read", "write"]


@FORMATS.register("peft")
class PeftFolder(Format):
    """A LoRA adapter as PEFT saves it."""

    suffix = ""
    text = "a folder of PEFT's with a LoRA adapter of a timm model"

    def import_zoo(
        self, path: Path, out: Path, *, backbone: str | None = None, name: str | None = None
    ) -> list[Fact]:
        """Reads an adapter into a zoo as a `lora` module; see `Format.import_zoo`.

        Args:
            path: The folder.
            out: Directory of the zoo, new or not.
            backbone: The backbone it was trained on: its name, or the arguments of `create_backbone` as YAML.
            name: The module's name in the zoo; the folder's if left out.
        """
        return add_module(out, name or path.name, backbone, lambda built: read(path, built))

    def export_zoo(
        self, zoo: Path, names: Sequence[str], to: Path, *, backbone: str | None = None
    ) -> list[Fact]:
        """Writes one `lora` module as an adapter; see `Format.export_zoo`.

        Args:
            zoo: Directory of the zoo.
            names: The module.
            to: The new folder.
            backbone: The module's backbone, where its name does not say all, as arguments of `create_backbone` in YAML;
                its weights do not matter.
        """
        chosen = list(names) or Zoo(zoo).names()
        if len(chosen) != 1:
            raise CheckpointError(f"a folder of PEFT's holds one adapter; name one module of {chosen}")
        asked = None if backbone is None else described(backbone)
        made = None if asked is None else create_backbone(asked) if isinstance(asked, str) else build_backbone(asked)
        return write(Zoo(zoo), chosen[0], to, made)
