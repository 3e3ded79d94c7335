"""TransMiter from tables of logits alone: what fine-tuning changed in a weak model, moved to a strong one.

Run it by `python move_from_logits.py`, in an empty directory.

Here the logits are invented. Yours come from `vimlight cache build`, or from a model that only answers.
"""

import logging
import warnings

import lightning.pytorch as pl
import torch
from torch.nn import functional as F

from vimlight.transmiter import CacheDataModule, ExtractionModule, LogitCache, TransMiter, align, write_cache

warnings.filterwarnings("ignore", module="lightning")
logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
pl.seed_everything(0, verbose=False)

# 240 images of four classes among 32 words; the weak model's idea of the words is further off than the strong one's.
classes, auxiliary = ("cat", "dog", "fox", "owl"), tuple(f"word {number}" for number in range(28))
labels = torch.arange(240) % 4
words = torch.randn(32, 16)
images = words[labels] + 1.2 * torch.randn(240, 16)
ideas = {name: words + off * torch.randn(32, 16) for name, off in {"weak": 1.6, "strong": 0.9}.items()}
logits = {name: images @ idea.T for name, idea in ideas.items()}
tuned = logits["weak"][:, :4] + 8 * F.one_hot(labels, 4)

about = {"class_names": classes, "labels": labels, "split": "train"}
for name, values in logits.items():
    write_cache(f"caches/{name}", logits=values, aux_names=auxiliary, model=name, **about)
write_cache("caches/weak_tuned", logits=tuned, model="weak, tuned", **about)

# What changed is learnt from the weak model's logits before and after; no label is read.
data = CacheDataModule("caches/weak", tuned="caches/weak_tuned", batch_size=60)
model = ExtractionModule(data.class_names, data.aux_names, loss="regression", out="weak.safetensors")
trainer = pl.Trainer(
    max_epochs=15, accelerator="cpu", logger=False, enable_checkpointing=False, enable_progress_bar=False,
    enable_model_summary=False,
)  # fmt: skip
trainer.fit(model, data)

# And moved: a closed form of both models' logits on the same images.
weak, strong = LogitCache.open("caches/weak"), LogitCache.open("caches/strong")
moved = align(TransMiter.load("weak.safetensors"), weak, strong)
moved.save("strong.safetensors")


def accuracy(answers: torch.Tensor) -> float:
    """The share of right answers among the task's classes."""
    return float((answers[:, :4].argmax(dim=1) == labels).float().mean())


print(f"weak {accuracy(logits['weak']):.2f}, fine-tuned {accuracy(tuned):.2f}")
print(f"strong {accuracy(logits['strong']):.2f}, with what the weak one learnt {accuracy(moved(strong.logits())):.2f}")
