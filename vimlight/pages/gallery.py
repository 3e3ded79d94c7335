"""A site of a zoo: one page with a card for each module, that one searches by words, task, plug-in and backbone."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from vimlight.errors import ZooError
from vimlight.masking import masked
from vimlight.report.html import Markup, element
from vimlight.report.page import Page
from vimlight.report.parts import chips, folded, paragraph
from vimlight.report.scores import is_share, score_text
from vimlight.zoo import Card, Zoo

__all__ = ["build_gallery"]

_UNSTATED = "none stated"
# By what cards are chosen: the name of the attribute, and what stands in front of the choice.
_FACETS = {"task": "task", "plugin": "plug-in", "backbone": "backbone", "licence": "licence"}
_ORDERS = {"name": "name", "date": "newest", "size": "size"}


class _Module(NamedTuple):
    name: str
    card: Card
    size: int


def build_gallery(zoo: Zoo, title: str = "", url: str = "") -> Page:
    """Builds the page of a zoo.

    Args:
        zoo: The zoo.
        title: The page's title; the zoo's name if left out.
        url: Where others find the zoo, as `vimlight zoo pull` takes it; without one, cards say how it is used where it
            lies.

    Raises:
        ZooError: If the zoo has no module.
    """
    modules, unread = _read(zoo)
    if not modules and not unread:
        raise ZooError(f"zoo {str(zoo.path)!r} has no module to show; add one with: vimlight zoo add FILE")
    page = Page(title or zoo.path.absolute().name, [_intro(modules)])
    cards = [_drawn(module, masked(url)) for module in modules]
    gallery = element("div", _choices(modules), element("div", cards, class_="cards"), class_="gallery")
    page.section("Modules", [gallery])
    if unread:
        page.section("Not shown", [paragraph(f"{name}: {text}") for name, text in unread.items()])
    return page


def _read(zoo: Zoo) -> tuple[list[_Module], dict[str, str]]:
    """Returns the modules, and why others cannot be read: one bad file must not hide the others."""
    modules, unread = [], {}
    for name in zoo:
        try:
            modules.append(_Module(name, zoo.card(name), zoo.file(name).stat().st_size))
        except (ZooError, OSError) as error:
            unread[name] = str(error)
    return modules, unread


def _intro(modules: Sequence[_Module]) -> str:
    backbones = dict.fromkeys(module.card.backbone for module in modules)
    return (
        f"{len(modules)} plug-in modules for {', '.join(backbones)}. Each was trained alone on one data set; a few "
        "gates aggregate them for a small task of your own, while the backbone stays as it is."
    )


def _choices(modules: Sequence[_Module]) -> Markup:
    field = element(
        "input", type="search", placeholder="Search modules", aria_label="Search modules", autocomplete="off"
    )
    chosen = [_facet(name, text, modules) for name, text in _FACETS.items()]
    orders = [element("option", text, value=name) for name, text in _ORDERS.items()]
    order = element("label", "sort by ", element("select", orders, data_sort=True))
    return element("p", field, chosen, order, element("output", f"{len(modules)} modules"), class_="filter")


def _facet(name: str, text: str, modules: Sequence[_Module]) -> Markup | None:
    values = sorted({_facts(module.card)[name] for module in modules})
    if len(values) < 2:
        return None
    options = [
        element("option", "any", value=""),
        *(element("option", value or "none", value=value) for value in values),
    ]
    return element("label", f"{text} ", element("select", options, data_facet=name))


def _facts(card: Card) -> dict[str, str]:
    found = {"task": card.task, "plugin": card.kind, "backbone": card.backbone, "licence": card.license}
    return {name: value or _UNSTATED for name, value in found.items()}


def _drawn(module: _Module, url: str) -> Markup:
    card, facts = module.card, _facts(module.card)
    keys = {f"data_{name}": value for name, value in facts.items()}
    keys |= {"data_name": module.name, "data_date": card.date, "data_size": str(module.size)}
    return element(
        "article",
        element("h3", module.name),
        paragraph(_learnt(card)),
        paragraph(card.text, "note") if card.text else None,
        chips([*_scores(card), *_about(module, facts)]),
        folded(f"{len(card.classes)} classes", paragraph(", ".join(card.classes), "note")) if card.classes else None,
        element("pre", _use(module.name, url)),
        class_="card", **keys,
    )  # fmt: skip


def _learnt(card: Card) -> str:
    what = card.task.capitalize() or "A module"
    classes = f" of {len(card.classes)} classes" if card.classes else ""
    source = f", learnt from {card.dataset}" if card.dataset else ""
    train = card.samples.get("train")
    return f"{what}{classes}{source}" + (f" ({train:,} images)." if isinstance(train, int) else ".")


def _main_score(card: Card) -> tuple[str, float] | None:
    """Returns the score that the kind of task is chosen by, of test images if there are any, else another one."""
    from vimlight.tasks import TASKS

    monitor = TASKS[card.task].monitor if card.task in TASKS else ""
    for split in ("test", "val", "train"):
        scores = {name: value for name, value in _numbers(card.metrics.get(split, {})).items() if name != "loss"}
        if scores:
            name = monitor if monitor in scores else next(iter(scores))
            return f"{split}/{name}", scores[name]
    return None


def _numbers(scores: Mapping[str, Any]) -> dict[str, float]:
    return {name: float(value) for name, value in scores.items() if isinstance(value, int | float)}


def _scores(card: Card) -> list[tuple[str, str]]:
    found = _main_score(card)
    return [] if found is None else [(found[0], score_text(*found) + (" %" if is_share(found[0]) else ""))]


def _about(module: _Module, facts: Mapping[str, str]) -> list[tuple[str, str]]:
    card = module.card
    found = {
        "licence": facts["licence"], "size": _size(module.size), "plug-in": card.kind, "backbone": card.backbone,
        "blocks": card.blocks, "author": card.author, "date": card.date[:10],
    }  # fmt: skip
    return [(name, text) for name, text in found.items() if text]


def _size(size: int) -> str:
    return f"{size / 1e6:.1f} MB" if size >= 1e6 else f"{size / 1e3:.0f} kB"


def _use(name: str, url: str) -> str:
    fit = f"vimlight fit --config @downstream/digits --model.modules '[{name}]'"
    return f"vimlight zoo pull {url} {name}\n{fit}" if url else f"{fit}\nvimlight zoo show {name}"
