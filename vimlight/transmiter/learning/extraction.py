"""Extraction: an adapter learns from unlabelled images what fine-tuning changed in a model's task logits."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any, ClassVar

import lightning.pytorch as pl
import torch
from lightning.pytorch.utilities import rank_zero_info
from torch import Tensor, nn
from torch.nn import functional as F
from torch.optim import AdamW
from torchmetrics import MeanMetric

from vimlight.errors import ConfigError, unknown_name
from vimlight.trainable import OptimizerFactory
from vimlight.transmiter.adapters.transmiter import TransMiter
from vimlight.transmiter.learning.module import AdapterModule, check_columns

__all__ = ["ExtractionModule", "distillation_loss", "regression_loss"]

_LOSSES = ("divergence", "regression")


class ExtractionModule(AdapterModule):
    """Trains an adapter to turn zero-shot logits into those of the fine-tuned model; no label is read.

    Where the data bring the fine-tuned model's logits of validation images too, it is told how often the adapter says
    what that model says of images that were left out, beside how often the zero-shot model does.

    Args:
        class_names: Names of the C task classes; the command line takes them from the data.
        aux_names: Names of the auxiliary classes; the command line takes them from the data.
        basis: `"fixed"`, `"learned"` or `"identity"`; see `TransMiter`.
        hidden_ratio: Width of the MLP's hidden layer as a multiple of the number of logits.
        seed: Decides the basis, the start of the MLP and the noise.
        loss: `"divergence"`, the published one, or `"regression"` of the logits themselves, which teaches more with few
            images; see `distillation_loss` and `regression_loss`.
        temperature: What the refined logits are divided by in the divergence.
        tuned_temperature: What the fine-tuned model's logits are divided by there; below 1 they are sharpened.
        noise: Deviation of the noise on the zero-shot logits, as a multiple of each row's deviation.
        noise_probability: Share of the batches that get noise.
        out: The file that the adapter is stored in, ending in `.safetensors`; without one it is not stored.
        overwrite: Whether an existing file is replaced.
        optimizer: From parameters to an optimiser; AdamW with a learning rate and a weight decay of 1e-3 if left out.
        warmup: Share of the steps over which the learning rate of the default schedule rises.
        **optimisation: Schedule; see `TrainableModule`.

    Raises:
        ConfigError: If a number is out of range.
        UnknownNameError: If there is no such basis or loss.
    """

    monitor: ClassVar[str] = "train/loss"

    def __init__(
        self,
        class_names: Sequence[str] = (),
        aux_names: Sequence[str] = (),
        *,
        basis: str = "fixed",
        hidden_ratio: float = 4,
        seed: int = 0,
        loss: str = "divergence",
        temperature: float = 1.0,
        tuned_temperature: float = 0.5,
        noise: float = 0.5,
        noise_probability: float = 0.5,
        out: str | None = None,
        overwrite: bool = False,
        optimizer: OptimizerFactory | None = None,
        warmup: float = 0.05,
        **optimisation: Any,
    ) -> None:
        adapter = TransMiter(check_columns(class_names, aux_names), len(class_names), basis, hidden_ratio, seed)
        super().__init__(
            adapter,
            class_names,
            aux_names,
            out=out,
            overwrite=overwrite,
            optimizer=optimizer or partial(AdamW, lr=1e-3, weight_decay=1e-3, fused=True),
            warmup=warmup,
            **optimisation,
        )
        if min(temperature, tuned_temperature) <= 0:
            raise ConfigError(f"temperatures must be above 0, got {temperature} and {tuned_temperature}")
        if noise < 0 or not 0 <= noise_probability <= 1:
            raise ConfigError(
                f"noise must be at least 0 and noise_probability from 0 to 1, got {noise} and {noise_probability}"
            )
        if loss not in _LOSSES:
            raise unknown_name("loss of an extraction", loss, _LOSSES)
        self.seed = seed
        self.loss = loss
        self.temperatures = (temperature, tuned_temperature)
        self.noise = noise
        self.noise_probability = noise_probability
        self.agreements = nn.ModuleDict({"zero_shot": MeanMetric(), "adapter": MeanMetric()})
        self.agreement: dict[str, float] = {}

    def check_data(self, data: pl.LightningDataModule | None) -> None:
        """Checks that the data bring a fine-tuned model's logits.

        Raises:
            ConfigError: If they do not.
        """
        if not getattr(data, "tuned_paths", data is None):
            raise ConfigError("extraction learns from a fine-tuned model: set data.tuned to the directory of its cache")

    def training_step(self, batch: Mapping[str, Any], batch_index: int) -> Tensor:
        """Computes the loss of a batch."""
        refined = self(self._with_noise(batch["logits"], batch_index))
        loss = self._loss(refined, batch["tuned"])
        size = len(refined)
        self.log("train/loss", loss, on_step=True, on_epoch=True, prog_bar=True, batch_size=size)
        same = (refined.argmax(dim=1) == batch["tuned"].argmax(dim=1)).float().mean()
        self.log("train/agreement", same, on_step=False, on_epoch=True, batch_size=size)
        return loss

    def validation_step(self, batch: Mapping[str, Any], batch_index: int) -> None:
        """Updates the validation metrics: by labels and by what the fine-tuned model says, where these are there."""
        if "target" in batch:
            super().validation_step(batch, batch_index)
        if "tuned" in batch:
            said = batch["tuned"].argmax(dim=1)
            tasks = slice(0, batch["tuned"].shape[1])
            ours = {"zero_shot": batch["logits"][:, tasks], "adapter": self(batch["logits"])}
            for name, logits in ours.items():
                same = (logits.argmax(dim=1) == said).float()
                self.agreements[name].update(same, weight=0.0 if batch.get("spare") else 1.0)  # type: ignore[operator]

    def on_validation_epoch_end(self) -> None:
        """Logs the scores."""
        super().on_validation_epoch_end()
        if not self.of_data("val_tuned_paths", []):
            return
        for name, metric in self.agreements.items():
            self.agreement[name] = float(metric.compute())  # type: ignore[operator]
            self.log(f"val/agreement_{name}", self.agreement[name], sync_dist=True)
            metric.reset()  # type: ignore[operator]

    def on_fit_end(self) -> None:
        """Stores the adapter, and says whether it is expected to help."""
        super().on_fit_end()
        if self.agreement:
            rank_zero_info(_expected(self.agreement))

    def describe_adapter(self) -> None:
        """Notes model, classes, caches and settings on the adapter's card."""
        facts = {
            "loss": self.loss,
            "temperatures": list(self.temperatures),
            "noise": self.noise,
            "noise_probability": self.noise_probability,
            "seed": self.seed,
            "combine": self.of_data("combine", "mean"),
            **({"agreement_left_out": self.agreement} if self.agreement else {}),
            "training": self.training_facts(),
            "caches": self.of_data("provenance", {}),
        }
        self.adapter.describe(
            class_names=self.task.class_names,
            aux_names=self.aux_names,
            model=self.of_data("model_name", ""),
            history=self.adapter.card.after("extraction", **facts),
        )

    def _loss(self, refined: Tensor, tuned: Tensor) -> Tensor:
        if self.loss == "regression":
            return regression_loss(refined, tuned)
        return distillation_loss(refined, tuned, *self.temperatures)

    def _with_noise(self, logits: Tensor, batch_index: int) -> Tensor:
        """Adds noise to some batches; which and what depends on the place in the training alone, so that it resumes."""
        if not self.noise or not self.noise_probability:
            return logits
        place = (self.seed * 1_000_003 + self.current_epoch) * 1_000_003 + batch_index
        generator = torch.Generator(logits.device).manual_seed((place * 1_009 + self.global_rank) % 2**63)
        chosen = torch.rand((), generator=generator, device=logits.device) < self.noise_probability
        noise = torch.randn(logits.shape, generator=generator, device=logits.device, dtype=logits.dtype)
        return logits + chosen * self.noise * logits.std(dim=1, keepdim=True) * noise


def _expected(agreement: Mapping[str, float]) -> str:
    before, after = agreement["zero_shot"], agreement["adapter"]
    verdict = "it is expected to help" if after > before else "it is not expected to help"
    return (
        f"of images left out the adapter says what the fine-tuned model says for {after:.1%}, the zero-shot model for "
        f"{before:.1%}: {verdict}"
    )


def distillation_loss(refined: Tensor, tuned: Tensor, temperature: float, tuned_temperature: float) -> Tensor:
    """Returns the divergence of the refined predictions from the fine-tuned model's, a scalar.

    It is `KL(softmax(tuned / tuned_temperature) || softmax(refined / temperature))`, the mean over the images, times
    `temperature ** 2 * tuned_temperature`, as in the published recipe.

    Args:
        refined: Refined task logits `(N, C)`.
        tuned: The fine-tuned model's task logits `(N, C)`.
        temperature: What the refined logits are divided by.
        tuned_temperature: What the fine-tuned model's logits are divided by.
    """
    ours, theirs = (refined / temperature).log_softmax(dim=1), (tuned / tuned_temperature).log_softmax(dim=1)
    divergence = F.kl_div(ours, theirs, reduction="batchmean", log_target=True)
    return temperature**2 * tuned_temperature * divergence


def regression_loss(refined: Tensor, tuned: Tensor) -> Tensor:
    """Returns how far the refined logits are from the fine-tuned model's, a scalar: Huber's loss of centred rows.

    The divergence looks at the likely classes of each image alone. Where images show few of the classes it says next
    to nothing of the others, which drift; here every column counts, and the classes never seen keep their order.

    Args:
        refined: Refined task logits `(N, C)`.
        tuned: The fine-tuned model's task logits `(N, C)`.
    """
    apart = refined - tuned
    # A shift of all logits of an image changes no prediction.
    apart = apart - apart.mean(dim=1, keepdim=True)
    return F.huber_loss(apart, torch.zeros_like(apart))
