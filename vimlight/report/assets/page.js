"use strict";
// Of long tables so many rows are laid out at once; more follow where one scrolls to.
const CHUNK = 200;
const printing = [];

for (const tabular of document.querySelectorAll(".tabular")) {
  const body = tabular.querySelector("tbody");
  const heads = [...tabular.querySelectorAll("th")];
  const box = tabular.querySelector(".scroll");
  let rows = [...body.rows];
  let fitting = rows;
  let limit = CHUNK;

  const draw = () => body.replaceChildren(...fitting.slice(0, limit));
  if (rows.length > CHUNK) {
    tabular.querySelector("table").setAttribute("aria-rowcount", rows.length + 1);
    // Columns stay as wide as all rows make them.
    const widths = heads.map((head) => head.offsetWidth);
    heads.forEach((head, column) => { head.style.minWidth = `${widths[column]}px`; });
    draw();
    box.addEventListener("scroll", () => {
      if (limit >= fitting.length || box.scrollTop + 2 * box.clientHeight < box.scrollHeight) return;
      body.append(...fitting.slice(limit, limit + CHUNK));
      limit += CHUNK;
    });
    printing.push((whole) => { limit = whole ? Infinity : CHUNK; draw(); });
  }

  let wanted = [];
  const texts = new Map(rows.map((row) => [row, [...row.cells].map((cell) => cell.textContent).join(" ").toLowerCase()]));
  const choose = () => {
    fitting = wanted.length ? rows.filter((row) => wanted.every((word) => texts.get(row).includes(word))) : rows;
    limit = CHUNK;
    box.scrollTop = 0;
    draw();
  };

  const value = (row, column) => {
    const cell = row.cells[column];
    return cell.dataset.key === undefined ? cell.textContent : Number(cell.dataset.key);
  };
  const compare = (a, b) => {
    if (typeof a === "number" && typeof b === "number") return a - b;
    return String(a).localeCompare(String(b), undefined, { numeric: true });
  };
  const sort = (column) => {
    const head = heads[column];
    // Of numbers the greatest stand first, of names the first.
    const first = head.classList.contains("left") ? "ascending" : "descending";
    const other = first === "ascending" ? "descending" : "ascending";
    const order = head.getAttribute("aria-sort") === first ? other : first;
    for (const each of heads) each.removeAttribute("aria-sort");
    head.setAttribute("aria-sort", order);
    const sign = order === "ascending" ? 1 : -1;
    const numeric = !head.classList.contains("left");
    const keyed = rows.map((row) => [value(row, column), row]);
    // What has no value stands last, whichever way.
    const missing = (key) => numeric && typeof key !== "number";
    keyed.sort(([a], [b]) => missing(a) - missing(b) || sign * compare(a, b));
    rows = keyed.map(([, row]) => row);
    choose();
  };
  heads.forEach((head, column) => head.querySelector("button").addEventListener("click", () => sort(column)));

  const field = tabular.querySelector("input");
  if (!field) continue;
  const count = tabular.querySelector("output");
  field.addEventListener("input", () => {
    wanted = field.value.toLowerCase().split(/\s+/).filter(Boolean);
    choose();
    const whole = rows.length.toLocaleString("en");
    count.value = wanted.length ? `${fitting.length.toLocaleString("en")} of ${whole} rows` : `${whole} rows`;
  });
}

const folded = [];
addEventListener("beforeprint", () => {
  for (const print of printing) print(true);
  folded.push(...document.querySelectorAll("details:not([open])"));
  for (const each of folded) each.open = true;
});
addEventListener("afterprint", () => {
  for (const print of printing) print(false);
  for (const each of folded.splice(0)) each.open = false;
});

const links = new Map([...document.querySelectorAll("nav a")].map((link) => [link.hash.slice(1), link]));
const seen = new IntersectionObserver((entries) => {
  for (const entry of entries) {
    if (!entry.isIntersecting) continue;
    for (const link of links.values()) link.removeAttribute("aria-current");
    links.get(entry.target.querySelector("h2").id)?.setAttribute("aria-current", "true");
  }
}, { rootMargin: "0px 0px -75% 0px" });
for (const section of document.querySelectorAll("main section")) seen.observe(section);

for (const gallery of document.querySelectorAll(".gallery")) {
  const place = gallery.querySelector(".cards");
  const cards = [...place.children];
  const field = gallery.querySelector("input");
  const facets = [...gallery.querySelectorAll("[data-facet]")];
  const order = gallery.querySelector("[data-sort]");
  const texts = new Map(cards.map((card) => [card, card.textContent.toLowerCase()]));
  // The newest stand first, names and sizes from the least.
  const compare = {
    name: (a, b) => a.name.localeCompare(b.name, undefined, { numeric: true }),
    date: (a, b) => b.date.localeCompare(a.date),
    size: (a, b) => a.size - b.size,
  };
  const choose = () => {
    const wanted = field.value.toLowerCase().split(/\s+/).filter(Boolean);
    let shown = 0;
    for (const card of cards) {
      const fits = facets.every((facet) => !facet.value || card.dataset[facet.dataset.facet] === facet.value);
      card.hidden = !fits || !wanted.every((word) => texts.get(card).includes(word));
      shown += !card.hidden;
    }
    gallery.querySelector("output").value = shown === cards.length ? `${shown} modules` : `${shown} of ${cards.length} modules`;
  };
  field.addEventListener("input", choose);
  for (const facet of facets) facet.addEventListener("change", choose);
  order.addEventListener("change", () => {
    place.append(...cards.sort((a, b) => compare[order.value](a.dataset, b.dataset)));
  });
}
