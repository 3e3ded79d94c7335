"""The page that asks: an image is dropped or chosen, and every task says what it shows."""

from __future__ import annotations

from collections.abc import Sequence

from vimlight import __version__
from vimlight.pages.sections.gates import gate_map
from vimlight.pages.sources.fit import Gates
from vimlight.report.html import Markup, element
from vimlight.report.page import asset, digest
from vimlight.report.parts import chips, folded, grid, paragraph
from vimlight.serving.reading import KINDS
from vimlight.serving.tasks import ServedTask, ServedTasks

__all__ = ["policy", "render"]

_HERE = "vimlight.serving"
# So many of the modules are named beside a task; its heat map has them all.
_NAMED = 6


def render(served: ServedTasks, megabytes: float) -> str:
    """Returns the page as HTML.

    Args:
        served: The tasks.
        megabytes: Size of the images that are taken, in millions of bytes.
    """
    count = len(served.tasks)
    title = f"{count} tasks, one image" if count > 1 else f"{next(iter(served.tasks))}, one image"
    head = element(
        "head",
        element("meta", charset="utf-8"),
        element("meta", name="viewport", content="width=device-width, initial-scale=1"),
        element("title", f"{title} · vimlight"),
        # Browsers ask for a picture of the page otherwise.
        element("link", rel="icon", href="data:,"),
        element("style", Markup(_style())),
    )
    cards = [_card(name, task) for name, task in served.tasks.items()]
    main = element(
        "main",
        element("header", element("h1", title), paragraph(_intro(served))),
        _asking(megabytes),
        element("section", element("h2", "Answers", id="answers"), element("div", cards, class_="cards"),
                aria_labelledby="answers"),
        element("section", element("h2", "Which modules spoke", id="modules"), _modules(served.tasks),
                aria_labelledby="modules"),
        element("footer", f"Served by vimlight {__version__}. Images are kept nowhere; this page loads nothing else."),
        id="content",
    )  # fmt: skip
    skip = element("a", "Skip to the content", href="#content", class_="skip")
    body = element("body", skip, main, element("script", Markup(_script())))
    whole = element("html", head, body, lang="en").encode("utf-8", "replace").decode()
    return f"<!doctype html>\n{whole}\n"


def policy() -> str:
    """Returns what the page may do: its own style and script, pictures it has made, and questions to its own server."""
    return (
        f"default-src 'none'; style-src 'sha256-{digest(_style())}'; script-src 'sha256-{digest(_script())}'; "
        "img-src data: blob:; connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    )


def _style() -> str:
    return asset("page.css") + asset("serve.css", _HERE)


def _script() -> str:
    return asset("serve.js", _HERE)


def _intro(served: ServedTasks) -> str:
    how = "in one pass" if served.passes == 1 else f"in {served.passes} passes, by what their heads read"
    return (
        f"The frozen backbone {served.backbone.name} answers an image for all tasks {how}: each has its own gates over "
        "the modules of a zoo, and its own head."
    )


def _asking(megabytes: float) -> Markup:
    field = element("input", type="file", id="image", accept=",".join(KINDS), class_="hidden",
                    aria_describedby="limits", data_most=str(int(1e6 * megabytes)))  # fmt: skip
    kinds = ", ".join(KINDS.values())
    limits = element("span", f"{kinds}, up to {megabytes:g} MB", class_="note", id="limits")
    invited = element("strong", "Drop an image here, or choose one")
    drop = element("label", field, invited, limits, class_="drop", for_="image")
    shown = element("img", id="preview", alt="The image that is answered", hidden=True)
    return element("div", drop, shown, element("p", "", id="said", role="status"), class_="asking")


def _card(name: str, served: ServedTask) -> Markup:
    classes = len(served.task.class_names)
    facts = [("kind", served.task.kind), *([("classes", str(classes))] if classes else [])]
    colours = served.task.colours()
    return element(
        "article",
        element("h3", name),
        chips(facts),
        element("div", element("p", "No image yet.", class_="note"), class_="answer"),
        folded("Colours", element("ul", map(_colour, colours.items()), class_="colours")) if colours else None,
        class_="card", data_task=name,
    )  # fmt: skip


def _colour(named: tuple[str, tuple[int, int, int]]) -> Markup:
    name, colour = named
    square = element("rect", width=12, height=12, rx=2, fill="#{:02x}{:02x}{:02x}".format(*colour))
    return element("li", element("svg", square, width=12, height=12, aria_hidden="true"), name)


def _modules(tasks: dict[str, ServedTask]) -> Sequence[Markup]:
    note = "Gates are learned for a task, and are the same for every image."
    return [paragraph(note, "note"), grid(*[_spoken(name, served.gates) for name, served in tasks.items()])]


def _spoken(name: str, gates: Gates) -> Markup:
    if not gates.names or not gates.places:
        bare = paragraph("The bare backbone: no module takes part.")
        return element("div", element("h3", name), bare, class_="spoken")
    loudness = mean_gates(gates)
    loudest = sorted(loudness.items(), key=lambda each: each[1], reverse=True)[:_NAMED]
    top = max([*loudness.values(), 1e-9])
    rows = [
        element("tr", element("th", module, scope="row"), element("td", f"{value:.2f}"),
                element("td", element("meter", value=f"{value / top:.4f}", aria_label=f"{module}: {value:.2f}")))
        for module, value in loudest
    ]  # fmt: skip
    caption = element("caption", "Mean size of each module's gates.")
    table = element("table", caption, element("tbody", rows), class_="bars")
    drawn = gate_map(gates, f"{name}: what each module weighs at each place.")
    return element("div", element("h3", name), table, folded("Place by place", drawn), class_="spoken")


def mean_gates(gates: Gates) -> dict[str, float]:
    """Returns how loud each module is: the mean size of its gates over all places.

    Args:
        gates: The gates, of one place at least.
    """
    columns = zip(*gates.values, strict=True)
    return {name: sum(map(abs, column)) / len(gates.places) for name, column in zip(gates.names, columns, strict=True)}
