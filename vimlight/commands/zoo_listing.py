"""How `vimlight zoo list` tells modules apart: what each learnt, from how much, how well, when, and how large it is."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from vimlight.commands.output import one_line
from vimlight.errors import ZooError, unknown_name

if TYPE_CHECKING:
    from vimlight.zoo import Card

__all__ = ["HEADINGS", "SORTS", "Listed", "in_order", "judged", "main_metric"]

HEADINGS = (
    "module", "plug-in", "backbone", "task", "data set", "classes", "samples", "main metric", "date", "size",
)  # fmt: skip


@dataclass(frozen=True)
class Listed:
    """A module of a list.

    Attributes:
        name: Its name.
        card: Its card, or what is wrong with its file.
        size: Bytes of its file.
    """

    name: str
    card: Card | ZooError
    size: int

    def cells(self) -> list[str]:
        """Returns what stands below `HEADINGS`."""
        from rich.filesize import decimal

        if isinstance(self.card, ZooError):
            return [self.name, f"({self.card})", *[""] * (len(HEADINGS) - 2)]
        card = self.card
        learnt = [card.kind, card.backbone, card.task, card.dataset, str(len(card.classes) or "")]
        return [self.name, *learnt, str(_samples(card) or ""), judged(card), card.date[:10], decimal(self.size)]


# By what a list can be sorted; numbers and dates with the greatest first.
SORTS: dict[str, Callable[[Listed, Card], Any]] = {
    "name": lambda listed, _: listed.name,
    "kind": lambda _, card: card.kind,
    "backbone": lambda _, card: card.backbone,
    "task": lambda _, card: card.task,
    "dataset": lambda _, card: card.dataset,
    "classes": lambda _, card: -len(card.classes),
    "samples": lambda _, card: -_samples(card),
    "metric": lambda _, card: _merit(card),
    "date": lambda _, card: [-ord(char) for char in card.date],
    "size": lambda listed, _: -listed.size,
}


def in_order(modules: Iterable[Listed], key: str) -> list[Listed]:
    """Returns modules sorted, those of equal rank by name, and damaged ones last.

    Args:
        modules: The modules.
        key: One of `SORTS`.

    Raises:
        UnknownNameError: If it is none.
    """
    if key not in SORTS:
        raise unknown_name("key to sort by", key, SORTS)

    def place(listed: Listed) -> tuple[Any, ...]:
        if isinstance(listed.card, ZooError):
            return True, 0, listed.name
        return False, SORTS[key](listed, listed.card), listed.name

    return sorted(modules, key=place)


def main_metric(card: Card) -> tuple[str, float] | None:
    """Returns name and value of the metric that a module is chosen by, on validation images where there were any.

    Args:
        card: Its card, which says which one that is; of others the first that is no loss.
    """
    for split in ("val", *card.metrics):
        scores = {name: value for name, value in card.metrics.get(split, {}).items() if isinstance(value, (int, float))}
        named = [name for name in scores if name == card.training.get("monitor")]
        for name in [*named, *(name for name in scores if "loss" not in name)]:
            return name, scores[name]
    return None


def judged(card: Card) -> str:
    """Returns a module's main metric in words, if it has one."""
    metric = main_metric(card)
    return "" if metric is None else f"{metric[0]} {one_line(metric[1])}"


def _samples(card: Card) -> int:
    """Returns from how many images a module learnt."""
    count = card.samples.get("train", 0)
    return count if isinstance(count, int) else 0


def _merit(card: Card) -> tuple[str, float]:
    """Metrics of one name stand together."""
    found = main_metric(card)
    return ("~", 0.0) if found is None else (found[0], -found[1])
