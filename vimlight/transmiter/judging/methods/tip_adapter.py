"""Tip-Adapter, training-free: zero-shot logits plus the labels of similar images among a few labelled ones.

Zhang et al., ECCV 2022 (arXiv 2207.09519).
"""

from __future__ import annotations

from typing import Any

from torch import Tensor
from torch.nn import functional as F

from vimlight.errors import ConfigError
from vimlight.transmiter.judging.methods import METHODS, Fit, Images, Method, Unsuitable
from vimlight.transmiter.judging.methods.choosing import choose

__all__ = ["TipAdapter"]

_ALPHAS = (0.0, 0.25, 0.5, 1.0, 1.5, 2.0, 3.0, 5.0)
_BETAS = (1.0, 2.0, 3.5, 5.5, 8.0, 12.0)
# The scale of CLIP's logits, for which the published alphas are meant.
_USUAL_SCALE = 100.0


@METHODS.register("tip_adapter")
class TipAdapter(Method):
    """`target + alpha exp(-beta (1 - f K)) V`, with K the features of labelled images and V their labels.

    Alpha counts in units of CLIP's logits and is scaled to the target's. Both are chosen on validation images,
    unless both are given, and are 1 and 5.5 where there are none.

    Args:
        alpha: Weight of the labelled images.
        beta: How fast their say falls with distance.

    Raises:
        ConfigError: If a number is negative.
    """

    title = "Tip-Adapter"
    place = 35
    reads = ("target", "target_features")
    needs = ("train_labels",)
    uses_labels = True

    def __init__(self, alpha: float | None = None, beta: float | None = None) -> None:
        for name, value in (("alpha", alpha), ("beta", beta)):
            if value is not None and value < 0:
                raise ConfigError(f"{name} of 'tip_adapter' must be at least 0, got {value}")
        self._alphas = _ALPHAS if alpha is None else (alpha,)
        self._betas = _BETAS if beta is None else (beta,)
        self._default = {"alpha": 1.0 if alpha is None else alpha, "beta": 5.5 if beta is None else beta}
        self.alpha, self.beta = self._default["alpha"], self._default["beta"]
        self._chosen: dict[str, Any] = {}

    def fit(self, data: Fit) -> None:
        """Keeps features and labels of the training images, and chooses alpha and beta."""
        if data.train is None or "target_features" not in data.train.roles or data.scale is None:
            raise Unsuitable("needs a --target-train cache with features and labels")
        self._keys = data.train.read("target_features")
        self._values = F.one_hot(data.train.labels, len(data.class_names)).to(self._keys)
        self._unit = data.scale / _USUAL_SCALE
        candidates = [{"alpha": alpha, "beta": beta} for alpha in self._alphas for beta in self._betas]
        if len(candidates) > 1:
            self._chosen = choose(self, data, candidates, default=self._default)

    def __call__(self, images: Images) -> Tensor:
        """Returns refined task logits `(n, C)`."""
        nearness = (self.beta * (images["target_features"] @ self._keys.T - 1)).exp()
        return images["target"] + self._unit * self.alpha * (nearness @ self._values)

    def choices(self) -> dict[str, Any]:
        """Returns alpha and beta, and how they were chosen."""
        return {"alpha": self.alpha, "beta": self.beta, "labelled images": len(self._keys), **self._chosen}

    def num_parameters(self) -> int:
        """Returns the size of the keys and values."""
        return self._keys.numel() + self._values.numel()
