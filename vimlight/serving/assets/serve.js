"use strict";
const field = document.getElementById("image");
const drop = document.querySelector(".drop");
const preview = document.getElementById("preview");
const said = document.getElementById("said");
// Answers to an image that was replaced meanwhile are not shown.
let asked = 0;

const make = (name, text, kind) => {
  const made = document.createElement(name);
  if (text !== undefined) made.textContent = text;
  if (kind) made.className = kind;
  return made;
};
const percent = (share) => `${(100 * share).toFixed(1)} %`;
const say = (text, wrong) => {
  said.textContent = text;
  said.classList.toggle("wrong", Boolean(wrong));
};

const row = (name, value, share) => {
  const made = make("tr");
  const head = make("th", name);
  head.scope = "row";
  made.append(head, make("td", value));
  if (share !== undefined) {
    const cell = make("td");
    const bar = make("meter");
    bar.value = share;
    bar.setAttribute("aria-label", `${name}: ${value}`);
    cell.append(bar);
    made.append(cell);
  }
  return made;
};
const table = (caption, rows) => {
  const made = make("table");
  const body = make("tbody");
  body.append(...rows);
  made.append(make("caption", caption), body);
  const box = make("div", undefined, "scroll");
  box.tabIndex = 0;
  box.setAttribute("role", "group");
  box.setAttribute("aria-label", caption);
  box.append(made);
  return box;
};

const answered = (name, answer) => {
  const parts = [];
  if (answer.label) parts.push(make("p", answer.label.replaceAll("|", ", "), "label"));
  if (answer.picture) {
    const picture = make("img");
    picture.src = answer.picture;
    picture.alt = `${name}: ${answer.label || "nothing was found"}`;
    parts.push(picture);
  }
  if (answer.top) {
    parts.push(table("Most probable classes", answer.top.map((each) => row(each.class, percent(each.probability), each.probability))));
  }
  if (answer.values) {
    parts.push(table("Numbers", Object.entries(answer.values).map(([key, value]) => row(key, Number(value).toPrecision(4)))));
  }
  if (answer.objects) {
    const rows = answer.objects.map((each) => row(each.label, `${percent(each.score)} at ${each.bbox.map(Math.round).join(", ")}`));
    parts.push(table(`${rows.length} objects: score, and left, top, width, height in pixels`, rows));
  }
  return parts.length ? parts : [make("p", "Nothing was found.", "note")];
};

const ask = async (file) => {
  if (!file) return;
  const number = ++asked;
  URL.revokeObjectURL(preview.src);
  preview.src = URL.createObjectURL(file);
  preview.hidden = false;
  if (file.size > Number(field.dataset.most)) {
    say(`The image is larger than ${Number(field.dataset.most) / 1e6} MB.`, true);
    return;
  }
  say("Looking ...");
  document.body.classList.add("busy");
  try {
    const response = await fetch("predict", { method: "POST", headers: { "Content-Type": file.type || "application/octet-stream" }, body: file });
    const found = await response.json();
    if (number !== asked) return;
    if (!response.ok) throw new Error(found.error);
    for (const card of document.querySelectorAll("[data-task]")) {
      const name = card.dataset.task;
      card.querySelector(".answer").replaceChildren(...answered(name, found.tasks[name]));
    }
    const short = Object.entries(found.tasks).map(([name, { label, top }]) => {
      return `${name}: ${(label || "nothing").replaceAll("|", ", ")}${top ? ` (${percent(top[0].probability)})` : ""}`;
    });
    say(short.join(" · "));
  } catch (error) {
    if (number === asked) say(`No answer: ${error.message}`, true);
  } finally {
    if (number === asked) document.body.classList.remove("busy");
  }
};

field.addEventListener("change", () => ask(field.files[0]));
// Wherever a file is dropped, the browser must not leave the page for it.
for (const name of ["dragenter", "dragover", "dragleave", "drop"]) {
  addEventListener(name, (event) => {
    event.preventDefault();
    drop.classList.toggle("over", name === "dragenter" || name === "dragover");
    if (name === "drop") ask(event.dataTransfer.files[0]);
  });
}
