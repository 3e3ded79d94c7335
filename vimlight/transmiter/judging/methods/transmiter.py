"""TransMiter in its forms: whole, without one of its parts, and tuned further with labels."""

from __future__ import annotations

import torch
from torch import Tensor

from vimlight.transmiter.judging.methods import METHODS, Fit, Images, Method
from vimlight.transmiter.judging.methods.columns import Columns

__all__ = ["Published", "Refined", "RefinedFurther", "WithoutAuxiliary", "WithoutBasisChange"]


class _Adapted(Method):
    """Refines the target's logits with the adapter that it needs, from a file."""

    reads = ("target_all",)

    def fit(self, data: Fit) -> None:
        """Takes the adapter and finds its columns."""
        (role,) = self.needs
        adapter = data.adapters[role]
        self._columns = Columns.of(adapter, data)
        self._adapter = adapter.to(data.device).eval()

    @torch.no_grad()
    def __call__(self, images: Images) -> Tensor:
        """Returns refined task logits `(n, C)`."""
        return self._columns.apply(self._adapter, images["target_all"])

    def num_parameters(self) -> int:
        """Returns the size of the adapter, its basis included."""
        return sum(tensor.numel() for tensor in self._adapter.state_dict().values())


@METHODS.register("transmiter_no_aux")
class WithoutAuxiliary(_Adapted):
    """An adapter that was learnt and moved on the task classes alone."""

    title = "TransMiter, task classes only"
    place = 40
    needs = ("adapter_no_aux",)


@METHODS.register("transmiter_no_basis_change")
class WithoutBasisChange(_Adapted):
    """The adapter as it was learnt on the source, put on the target unmoved."""

    title = "TransMiter, no basis change"
    place = 41
    needs = ("adapter_unmoved",)


@METHODS.register("transmiter_published")
class Published(_Adapted):
    """The adapter learnt by divergence and moved with the published pull, where `transmiter` was made otherwise."""

    title = "TransMiter, as published"
    place = 41
    needs = ("adapter_published",)


@METHODS.register("transmiter")
class Refined(_Adapted):
    """The adapter learnt on the source and moved to the target."""

    title = "TransMiter"
    place = 42
    needs = ("adapter",)


@METHODS.register("transmiter_plus")
class RefinedFurther(_Adapted):
    """The moved adapter, tuned further on a few labelled images."""

    title = "TransMiter+"
    place = 43
    needs = ("adapter_plus",)
    made_with_labels = True
