"""The models themselves: their logits as they are cached."""

from __future__ import annotations

from torch import Tensor

from vimlight.transmiter.judging.methods import METHODS, Images, Method

__all__ = ["SourceTuned", "SourceZeroShot", "TargetTuned", "TargetZeroShot"]


class _Cached(Method):
    """Returns the only logits it reads."""

    def __call__(self, images: Images) -> Tensor:
        """Returns the cached task logits `(n, C)`."""
        return images[self.reads[0]]


@METHODS.register("source_zero_shot")
class SourceZeroShot(_Cached):
    """The weak model as it came."""

    title = "source zero-shot"
    place = 10
    reads = ("source",)


@METHODS.register("source_tuned")
class SourceTuned(_Cached):
    """The weak model, fine-tuned."""

    title = "source fine-tuned"
    place = 11
    reads = ("source_tuned",)


@METHODS.register("target_zero_shot")
class TargetZeroShot(_Cached):
    """The strong model as it came."""

    title = "target zero-shot"
    place = 12


@METHODS.register("target_tuned")
class TargetTuned(_Cached):
    """The strong model, fine-tuned itself: what the others try to do without."""

    title = "target fine-tuned"
    place = 90
    reads = ("target_tuned",)
    made_with_labels = True
