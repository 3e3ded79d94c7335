"""What a backbone expects of its images is a part of its identity."""

from __future__ import annotations

import dataclasses
import json

import pytest

from vimlight.backbone import Preprocessing, create_backbone
from vimlight.backbone.weights import why_other

# As they were before crop modes were known.
FINGERPRINTS = {
    "vit_scenes_small": "f67c0ed27eb41a91467becbd25df3f1c3f670358563ef42a3409f36cbcce30c3",
    "vit_scenes_base": "5bb59e008c1b978e7cfa96c9937937b6b1dc15b0e84ad8ddf9575ff88db57fba",
}
LOOKS = Preprocessing((8, 12), (0.5, 0.4, 0.3), (0.1, 0.2, 0.3), "bilinear", 0.9, "border")


@pytest.mark.parametrize("name", FINGERPRINTS)
def test_fingerprints_of_models_that_crop_stay_what_they_are(name):
    assert create_backbone(name, pretrained=True).fingerprint == FINGERPRINTS[name]


def test_another_crop_mode_is_another_backbone():
    backbone = create_backbone("test_vit")
    found = {backbone.fingerprint}
    for mode in ("squash", "border"):
        backbone.preprocessing = dataclasses.replace(backbone.preprocessing, crop_mode=mode)
        found.add(backbone.compute_fingerprint())
    assert len(found) == 3


def test_a_fingerprint_from_before_crop_modes_is_explained():
    cropped = create_backbone("test_vit")
    squashed = create_backbone("test_vit", pretrained_cfg_overlay={"crop_mode": "squash"})
    squashed.model.load_state_dict(cropped.model.state_dict())
    assert squashed.fingerprint != cropped.fingerprint
    assert "set pretrained_cfg_overlay: {crop_mode: center} among the backbone's arguments" in why_other(
        cropped.fingerprint, squashed.model, squashed.preprocessing
    )
    assert why_other(cropped.fingerprint, cropped.model, cropped.preprocessing) == ""
    assert why_other("0" * 64, squashed.model, squashed.preprocessing) == ""


def test_fields_survive_json():
    assert Preprocessing.from_dict(json.loads(json.dumps(LOOKS.as_dict()))) == LOOKS
    assert Preprocessing.from_dict(LOOKS.identity()) == LOOKS
    assert "crop_mode" not in dataclasses.replace(LOOKS, crop_mode="center").identity()


def test_differences_are_said():
    other = dataclasses.replace(LOOKS, size=(8, 8), crop_mode="squash")
    assert other.differences(LOOKS) == "size is (8, 8), not (8, 12), crop_mode is squash, not border"
