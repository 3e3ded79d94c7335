"""What fused plug-ins cost, in operations: the benchmark `python -m benchmarks fused` measures the time."""

from __future__ import annotations

import pytest
import timm
import torch
from torch.utils.flop_counter import FlopCounterMode

from vimlight.backbone import Backbone, Preprocessing
from vimlight.plugins import Attachment, Slot, create_plugin


@pytest.mark.slow
def test_twelve_fused_convpass_modules_cost_a_tenth_of_vit_small():
    with torch.device("meta"):
        model = timm.create_model("vit_small_patch16_224", num_classes=0)
        backbone = Backbone(model, "vit_small_patch16_224", Preprocessing.of(model))
        backbone.fingerprint = "of no weights"
        plugins = [create_plugin("convpass", backbone, hidden=8) for _ in range(12)]
        gates, images = torch.ones(12), torch.empty(1, 3, 224, 224)

    def operations(slots):
        with Attachment(backbone, slots), torch.no_grad(), FlopCounterMode(display=False) as counter:
            backbone(images)
        return counter.get_total_flops()

    def slot(site):
        wide = plugins[0].unit_type.widen([plugin.unit(site) for plugin in plugins])
        return Slot(site, "input", "output", lambda x: wide(x, gates))

    ratio = operations([slot(site) for site in backbone.sites]) / operations([])
    assert 1.05 < ratio <= 1.12
