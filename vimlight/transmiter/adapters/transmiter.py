"""Adapters: small modules that refine logits, and TransMiter's, which is learnt on one model and moved to another."""

from __future__ import annotations

import dataclasses
import os
from abc import abstractmethod
from collections.abc import Mapping
from typing import Any, ClassVar, TypeVar

import torch
from torch import Tensor, nn

from vimlight.errors import AdapterError, ConfigError
from vimlight.files.outline import check_shapes, outline
from vimlight.registry import Registry
from vimlight.transmiter.adapters.basis import BASES, Basis, FixedBasis
from vimlight.transmiter.adapters.file import AdapterCard, read_adapter, write_adapter
from vimlight.transmiter.cache import LogitCache
from vimlight.transmiter.cache.rows import difference, z_score

__all__ = ["ADAPTERS", "Adapter", "TransMiter"]

A = TypeVar("A", bound="Adapter")


class Adapter(nn.Module):
    """A module that refines the logits of one model; the base of all kinds.

    The columns of the logits are the C task classes, then the auxiliary classes.

    Attributes:
        kind: Its name among the adapters.
        settings: Arguments that make one of the same form.
        num_logits: Number of columns M.
        num_classes: Number of task classes C.
        card: What is known of it: classes, model, and how it was made.
    """

    kind: ClassVar[str]

    def __init__(self, num_logits: int, num_classes: int, **settings: Any) -> None:
        super().__init__()
        if not 1 <= num_classes <= num_logits or num_logits < 2:
            raise ConfigError(
                f"an adapter needs at least 2 logits and 1 to all of them as task classes; got num_logits={num_logits} "
                f"and num_classes={num_classes}"
            )
        self.num_logits = num_logits
        self.num_classes = num_classes
        self.settings = {"num_logits": num_logits, "num_classes": num_classes, **settings}
        self.card = AdapterCard(self.kind, self.settings)

    @abstractmethod
    def task_logits(self, logits: Tensor, features: Tensor | None = None) -> Tensor:
        """Returns the refined task logits alone, `(N, C)`, which costs less than all of them.

        Args:
            logits: `(N, M)`.
            features: `(N, E)`, L2-normalised, for an adapter that reads them; others leave them alone.
        """

    def for_inference(self) -> Adapter:
        """Returns an adapter that computes the same with less, or this one."""
        return self

    def describe(self: A, **facts: Any) -> A:
        """Notes facts on the card.

        Args:
            **facts: Fields of `AdapterCard`, such as `class_names` and `model`.

        Raises:
            ConfigError: If there are other than C class names or M names in all.
        """
        card = dataclasses.replace(self.card, **facts)
        counts = len(card.class_names), len(card.column_names)
        if card.class_names and counts != (self.num_classes, self.num_logits):
            raise ConfigError(
                f"{counts[0]} class names and {counts[1]} names in all, for an adapter of {self.num_classes} task "
                f"classes and {self.num_logits} logits"
            )
        self.card = card
        return self

    def save(self, path: str | os.PathLike[str], *, overwrite: bool = False) -> None:
        """Saves the adapter as one safetensors file, which appears whole or not at all.

        Args:
            path: The file, ending in `.safetensors`.
            overwrite: Whether an existing file is replaced.

        Raises:
            AdapterError: If the path ends in something else.
            ConfigError: If the file exists and `overwrite` is false.
        """
        self.card = write_adapter(path, self.card, self.state_dict(), overwrite)

    @classmethod
    def load(cls: type[A], path: str | os.PathLike[str]) -> A:
        """Loads an adapter of this kind, in eval mode; see `load_adapter` for one of any kind.

        Args:
            path: The file.

        Raises:
            AdapterError: If the file is missing, damaged, of a newer format, or holds another kind of adapter.
        """
        card, tensors = read_adapter(path)
        if card.kind != cls.kind:
            raise AdapterError(
                f"{os.fspath(path)!r} holds a {card.kind!r} adapter, not {cls.kind!r}; load it with load_adapter"
            )
        return cls.rebuild(card, tensors)

    @classmethod
    def rebuild(cls: type[A], card: AdapterCard, tensors: Mapping[str, Tensor]) -> A:
        """Makes an adapter from what was read from its file.

        Args:
            card: The card.
            tensors: The tensors by name.

        Raises:
            AdapterError: If settings or tensors are not those of this kind.
        """
        what = f"the {cls.kind!r} adapter"
        form = outline(lambda: cls(**card.settings), what, AdapterError)
        check_shapes(tensors, form.state_dict(), what, AdapterError)
        try:
            adapter = cls(**{**card.settings, **cls.given_tensors(card.settings, tensors)})
            adapter.load_state_dict(tensors)
        except (TypeError, KeyError, RuntimeError) as error:
            raise AdapterError(f"settings and tensors do not make a {cls.kind!r} adapter: {error}") from error
        adapter.card = card
        return adapter.eval()

    @classmethod
    def given_tensors(cls, settings: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> dict[str, Any]:
        """Returns the arguments that are tensors, where making them anew would only cost time."""
        return {}

    def check_cache(self, cache: LogitCache) -> None:
        """Checks that a cache holds logits that the adapter refines: of its model, with its columns.

        Args:
            cache: The cache.

        Raises:
            AdapterError: If it does not; for classes the text says what is missing and extra.
        """
        where, card = f"cache {str(cache.path)!r}", self.card
        if card.class_names:
            fault = difference(card.class_names, cache.class_names)
            if fault is not None:
                raise AdapterError(f"{where} has other classes than the adapter: {fault}")
            fault = difference(card.aux_names, cache.aux_names)
            if fault is not None:
                raise AdapterError(f"{where} has other auxiliary classes than the adapter: {fault}")
        counts = (self.num_classes, self.num_logits), (cache.num_classes, cache.num_logits)
        if counts[0] != counts[1]:
            raise AdapterError(f"{where} has (classes, logits) {counts[1]}, the adapter takes {counts[0]}")
        if card.model and card.model != cache.model:
            raise AdapterError(f"{where} holds logits of {cache.model!r}, the adapter refines those of {card.model!r}")

    def check_width(self, logits: Tensor) -> None:
        """Checks the shape of logits.

        Raises:
            ConfigError: If they are not `(N, M)`.
        """
        if logits.ndim != 2 or logits.shape[1] != self.num_logits:
            raise ConfigError(f"the adapter takes logits (images, {self.num_logits}), got {tuple(logits.shape)}")


ADAPTERS: Registry[type[Adapter]] = Registry("kind of adapter", "vimlight.transmiter.adapters", "ADAPTERS")


@ADAPTERS.register("transmiter")
class TransMiter(Adapter):
    """Refines logits by what fine-tuning changed in another model.

    Each row of logits is z-scored and multiplied by an orthogonal basis W, a residual MLP changes it, and the way back
    is taken with the same W and the row's own deviation and mean. Since W is orthogonal, what comes out is the row plus
    `std * MLP(z @ W.T) @ W`; the last layer starts at zero, so that an untrained adapter changes nothing.

    Args:
        num_logits: Number of columns M.
        num_classes: Number of task classes C, the first columns.
        basis: `"fixed"` (random orthogonal), `"learned"` or `"identity"`, or a matrix `(M, M)` to keep as it is.
        hidden_ratio: Width of the MLP's hidden layer as a multiple of M.
        seed: Decides the basis and the start of the MLP.

    Attributes:
        projection: The basis as a module.
        mlp: LayerNorm, widening Linear, GELU, narrowing Linear.

    Raises:
        ConfigError: If a number is out of range or a given matrix is not orthogonal.
        UnknownNameError: If there is no such basis.
    """

    kind = "transmiter"

    def __init__(
        self,
        num_logits: int,
        num_classes: int,
        basis: str | Tensor = "fixed",
        hidden_ratio: float = 4,
        seed: int = 0,
    ) -> None:
        name = basis if isinstance(basis, str) else "fixed"
        super().__init__(num_logits, num_classes, basis=name, hidden_ratio=hidden_ratio, seed=seed)
        if hidden_ratio * num_logits < 1:
            raise ConfigError(f"hidden_ratio must widen {num_logits} logits to at least 1, got {hidden_ratio}")
        self.projection: Basis
        if isinstance(basis, str):
            self.projection = BASES[basis](num_logits, seed)
        else:
            self.projection = FixedBasis(num_logits, seed, basis)
        self.mlp = _mlp(num_logits, int(hidden_ratio * num_logits), seed)

    @property
    def basis(self) -> Tensor:
        """W, `(D, M)`."""
        return self.projection.matrix

    def forward(self, logits: Tensor) -> Tensor:
        """Returns refined logits `(N, M)` of logits `(N, M)`.

        Raises:
            ConfigError: If there are other than M columns.
        """
        return self._refined(logits, self.num_logits)

    def task_logits(self, logits: Tensor, features: Tensor | None = None) -> Tensor:
        """Returns refined task logits `(N, C)` of logits `(N, M)`; features are not read.

        Raises:
            ConfigError: If there are other than M columns.
        """
        return self._refined(logits, self.num_classes)

    def with_basis(self, basis: Tensor) -> TransMiter:
        """Returns an adapter with a copy of the same MLP and another basis, which is kept as it is.

        Args:
            basis: `(D, M)`, orthogonal.

        Raises:
            ConfigError: If the matrix is not orthogonal or of another size.
        """
        settings = {**self.settings, "basis": basis.to(self.basis)}
        other = TransMiter(**settings).to(self.basis)
        other.mlp.load_state_dict(self.mlp.state_dict())
        other.card = dataclasses.replace(self.card, settings=other.settings)
        return other.train(self.training)

    def for_inference(self) -> TransMiter:
        """Returns an adapter with a trained basis written out as a matrix, or this one."""
        if not list(self.projection.parameters()):
            return self
        with torch.no_grad():
            return self.with_basis(self.basis)

    @classmethod
    def given_tensors(cls, settings: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> dict[str, Any]:
        """Returns the basis, if it is a fixed one."""
        return {"basis": tensors["projection.weight"]} if settings["basis"] == "fixed" else {}

    def _refined(self, logits: Tensor, columns: int) -> Tensor:
        self.check_width(logits)
        logits = logits.to(self.projection.anchor.dtype)
        scores, scale = z_score(logits)
        change = self.projection.reconstruct(self.mlp(self.projection.project(scores)), columns)
        return logits[:, :columns] + scale * change


def _mlp(width: int, hidden: int, seed: int) -> nn.Sequential:
    # Without the usual start, which would move the global random state.
    widen: nn.Linear = nn.utils.skip_init(nn.Linear, width, hidden)
    narrow: nn.Linear = nn.utils.skip_init(nn.Linear, hidden, width)
    nn.init.xavier_uniform_(widen.weight, generator=torch.Generator().manual_seed(seed))
    for parameter in (widen.bias, narrow.weight, narrow.bias):
        nn.init.zeros_(parameter)
    return nn.Sequential(nn.LayerNorm(width), widen, nn.GELU(), narrow)
