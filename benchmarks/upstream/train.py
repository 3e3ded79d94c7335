"""Trains one model of the shipped image-text pair on drawn scenes and captions.

    python benchmarks/upstream/train.py --model small --minutes 40 --threads 1

Contrastive training [Radford et al. 2021] with two additions. A caption counts as right for every image that it is
true of, not only for its own. And the images are also matched against short phrases that name one attribute each ("a
star", "a red object"), which teaches shapes much sooner than captions alone. Images are drawn on the fly, easy ones
first. Run it again with the same `--output` to resume.
"""

from __future__ import annotations

import argparse
import json
import math
import time
from pathlib import Path
from typing import Any

import torch
from batches import ATTRIBUTES, Batch, draw_batch, names_of, normalise
from evaluation import evaluate
from export import export
from grow import grow
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.attention import SDPBackend, sdpa_kernel
from tqdm import tqdm

from vimlight.data.scenes.captions import FACTS
from vimlight.embedded.pair import create_pair_model, pair_tokenizer

WARM_UP = 0.04
HARDEST = 0.7


def arguments() -> argparse.Namespace:
    """Reads the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", choices=["small", "base"], default="small")
    length = parser.add_mutually_exclusive_group(required=True)
    length.add_argument("--minutes", type=float, help="train for so long; the schedule follows the clock")
    length.add_argument("--steps", type=int, help="train for so many steps; the same on every run")
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--lr", type=float, default=1.5e-3)
    parser.add_argument("--weight-decay", type=float, default=0.05)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--save-every", type=float, default=150, help="seconds between checkpoints")
    parser.add_argument("--evaluate-every", type=float, default=300, help="seconds between evaluations")
    parser.add_argument(
        "--grow-from", type=Path, help="checkpoint of the small model, from which the base model starts"
    )
    parser.add_argument("--output", type=Path, required=True, help="directory for checkpoint, log and exported weights")
    return parser.parse_args()


class Trainer:
    """The model, its optimiser and how far training has come."""

    def __init__(self, args: argparse.Namespace) -> None:
        torch.manual_seed(args.seed)
        self.args = args
        self.model = create_pair_model(f"vit_scenes_{args.model}").to(memory_format=torch.channels_last)
        for module in self.model.visual.modules():
            # With 64 tokens, plain products beat the fused attention on a CPU by a factor of two.
            if hasattr(module, "fused_attn"):
                module.fused_attn = False
        groups = _groups(self.model, args.weight_decay)
        self.optimizer = torch.optim.AdamW(groups, lr=args.lr, betas=(0.9, 0.98), fused=True)
        self.tokenizer = pair_tokenizer()
        self.phrases = {name: names_of(name) for name in ATTRIBUTES}
        self.step, self.elapsed = 0, 0.0
        self.checkpoint = args.output / "checkpoint.pt"
        if self.checkpoint.is_file():
            self.load()
        elif args.grow_from:
            grow(torch.load(args.grow_from, weights_only=True)["model"], self.model, args.seed)

    @property
    def progress(self) -> float:
        """How much of the training is done, in [0, 1]."""
        done = self.step / self.args.steps if self.args.steps else self.elapsed / (60 * self.args.minutes)
        return min(1.0, done)

    @property
    def difficulty(self) -> float:
        """Difficulty of the next batch: evenly spread below a bound that rises over the first half of training."""
        bound = HARDEST * min(1.0, 0.1 + 1.8 * self.progress + (self.args.grow_from is not None))
        return bound * (self.step * 0.6180339887 % 1)

    def update(self) -> dict[str, float]:
        """Takes one step and returns the losses."""
        started = time.perf_counter()
        rate = _learning_rate(self.progress) * self.args.lr
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        batch = draw_batch(self.args.batch, self.args.seed * 1_000_003 + self.step, self.difficulty)
        losses = self.losses(batch)
        self.optimizer.zero_grad()
        sum(losses.values()).backward()
        nn.utils.clip_grad_norm_(self.model.parameters(), 1.0)
        self.optimizer.step()
        self.model.logit_scale.data.clamp_(0, math.log(100))
        self.step += 1
        self.elapsed += time.perf_counter() - started
        return {name: float(loss.detach()) for name, loss in losses.items()}

    def losses(self, batch: Batch) -> dict[str, Tensor]:
        """Returns the contrastive loss over captions and the mean loss over attribute phrases."""
        with torch.autocast("cpu", torch.bfloat16), sdpa_kernel(SDPBackend.MATH):
            image = self.model.encode_image(normalise(batch.images), normalize=True)
            texts = [*batch.texts, *(phrase for phrases in self.phrases.values() for phrase in phrases)]
            text = self.model.encode_text(self.tokenizer(texts), normalize=True)
        logits = self.model.logit_scale.exp() * image.float() @ text.float().T
        caption, *phrases = logits.split([len(batch.texts), *map(len, self.phrases.values())], dim=1)
        facts = torch.from_numpy(batch.facts)
        attributes = [
            _attribute_loss(part, facts[:, FACTS.index(name)], facts[:, 0], name)
            for name, part in zip(self.phrases, phrases, strict=True)
        ]
        matches = batch.matches
        contrastive = (_soft_cross_entropy(caption, matches) + _soft_cross_entropy(caption.T, matches.T)) / 2
        return {"captions": contrastive, "attributes": torch.stack(attributes).mean()}

    def save(self) -> None:
        """Writes the checkpoint in one move, so that an interruption leaves the old one whole."""
        state = {
            "model": self.model.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "step": self.step,
            "elapsed": self.elapsed,
        }
        torch.save(state, self.checkpoint.with_suffix(".part"))
        self.checkpoint.with_suffix(".part").replace(self.checkpoint)

    def load(self) -> None:
        """Resumes from the checkpoint."""
        state = torch.load(self.checkpoint, weights_only=True)
        self.model.load_state_dict(state["model"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.step, self.elapsed = state["step"], state["elapsed"]

    def report(self) -> dict[str, Any]:
        """Evaluates, appends to the log and exports the weights."""
        figures = evaluate(self.model, self.tokenizer)
        entry = {"step": self.step, "minutes": round(self.elapsed / 60, 1), **figures}
        with (self.args.output / "log.jsonl").open("a") as log:
            log.write(json.dumps(entry) + "\n")
        recipe = {name: value for name, value in vars(self.args).items() if name not in ("output", "grow_from")}
        recipe["images"] = self.step * self.args.batch
        name = f"vit_scenes_{self.args.model}"
        export(self.model, self.args.output / f"{name}.safetensors", name, recipe, entry)
        return entry


def _groups(model: nn.Module, weight_decay: float) -> list[dict[str, Any]]:
    """Exempts vectors and scalars from weight decay."""
    matrices = [parameter for parameter in model.parameters() if parameter.ndim > 1]
    vectors = [parameter for parameter in model.parameters() if parameter.ndim <= 1]
    return [{"params": matrices, "weight_decay": weight_decay}, {"params": vectors, "weight_decay": 0.0}]


def _learning_rate(progress: float) -> float:
    """Linear warm-up, then half a cosine."""
    if progress < WARM_UP:
        return 0.02 + progress / WARM_UP * 0.98
    return 0.5 * (1 + math.cos(math.pi * (progress - WARM_UP) / (1 - WARM_UP)))


def _soft_cross_entropy(logits: Tensor, matches: Tensor) -> Tensor:
    """Cross-entropy against the even distribution over each row's matches; every row has one at least."""
    target = matches.float() / matches.sum(dim=1, keepdim=True)
    return functional.cross_entropy(logits, target)


def _attribute_loss(logits: Tensor, values: Tensor, kinds: Tensor, name: str) -> Tensor:
    """Cross-entropy over the values of one attribute, on the images of the kind that its phrases speak of."""
    kind, known = ATTRIBUTES[name]
    rows = kinds == kind
    target = torch.searchsorted(torch.tensor(known), values[rows])
    return functional.cross_entropy(logits[rows], target)


def main() -> None:
    """Trains until the time or the steps are used up."""
    args = arguments()
    args.output.mkdir(parents=True, exist_ok=True)
    torch.set_num_threads(args.threads)
    trainer = Trainer(args)
    saved = evaluated = trainer.elapsed
    with tqdm(total=100, unit="%", bar_format="{l_bar}{bar}| {elapsed}<{remaining} {postfix}", mininterval=10) as bar:
        while trainer.progress < 1:
            losses = trainer.update()
            bar.n = 100 * trainer.progress
            bar.set_postfix(step=trainer.step, **{name: f"{loss:.2f}" for name, loss in losses.items()})
            if trainer.elapsed - saved > args.save_every:
                trainer.save()
                saved = trainer.elapsed
            if trainer.elapsed - evaluated > args.evaluate_every:
                bar.write(json.dumps(trainer.report()))
                evaluated = trainer.elapsed
    trainer.save()
    print(json.dumps(trainer.report()))


if __name__ == "__main__":
    main()
