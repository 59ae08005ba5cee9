// The list of settings. gr.HTML runs this text, and the files that belong to it, once per element, as the body of a
// function that is given `element`, `props`, `server` and `watch`. Texts only ever become textContent or a field's value.
// Settings with a Gradio control of their own, anywhere on the page, are marked, reset and stepped here too.

const TYPED = 200; // ms after the last key until what was typed counts
const FACTORS = [1, 1.5, 2, 3, 5, 7, 10]; // between two powers of ten, for learning rates

const part = (name) => element.querySelector(`.settings-${name}`);
const fill = (text, values) => text.replace(/\{(\w+)\}/g, (place, name) => values[name] ?? place);
const same = (one, other) => (one ?? "") === (other ?? "");

const rows = new Map(); // what the server says of each setting, by its place, with `node` and `field` as they are made
let words = {};
let values = JSON.parse(props.value); // what the list's settings show
let usual = {}; // the preset's value where another is shown
let wrong = {};
let typing = 0; // the timer of what is being typed

function make(kind, name, text = "") {
  const node = document.createElement(kind);
  node.className = `settings-${name}`;
  if (text) node.textContent = text;
  return node;
}

function button(name, text, pressed) {
  const node = Object.assign(make("button", name, text), { type: "button" });
  node.onclick = pressed;
  return node;
}

// ---- one row

function makeField(row) {
  const field = document.createElement({ choice: "select", texts: "textarea" }[row.kind] ?? "input");
  field.id = row.id;
  field.className = "settings-input";
  field.setAttribute("aria-describedby", `${row.id}-help`);
  if (row.kind === "switch") field.type = "checkbox";
  else if (row.kind === "choice") field.append(...row.choices.map((choice) => new Option(choice, choice)));
  else if (row.kind === "texts") field.rows = 3;
  else if (row.kind === "text") Object.assign(field, { type: "text", spellcheck: false });
  else Object.assign(field, { type: "number", step: "any", inputMode: "decimal" });
  return field;
}

function makeRow(row) {
  row.node = make("div", "row");
  row.field = makeField(row);
  row.node.dataset.kind = row.kind;
  const label = Object.assign(make("label", "label", row.label), { htmlFor: row.id });
  const help = Object.assign(make("p", "help", row.help), { id: `${row.id}-help` });
  const named = make("div", "named");
  named.append(label);
  if (row.kohya) named.append(make("span", "kohya", `kohya: ${row.kohya}`));
  named.append(help);
  const held = make("div", "held");
  held.append(row.field);
  if (row.unit) held.append(make("span", "unit", row.unit));
  row.node.append(named, held, makeMark(row));
  write(row);
  return row.node;
}

function makeMark(row) {
  const mark = make("div", "mark");
  row.mark = mark;
  return mark;
}

// The field that a person sees: of the list, or inside Gradio's control.
const fieldOf = (row) => row.field ?? document.getElementById(row.id)?.querySelector("input, textarea");

function read({ kind, field }) {
  if (kind === "switch") return field.checked;
  if (kind === "whole" || kind === "number") return field.value === "" ? null : Number(field.value);
  return field.value;
}

function write(row) {
  const value = values[row.place];
  if (row.kind === "switch") row.field.checked = Boolean(value);
  else if (!same(read(row), value)) row.field.value = value ?? "";
}

// What a person has entered counts.
function take(row) {
  const value = read(row);
  if (same(values[row.place], value)) return;
  values = { ...values, [row.place]: value };
  props.value = JSON.stringify(values);
  drawApplying();
}

// What is being typed counts at once: a button may be pressed next.
function takeTyped() {
  clearTimeout(typing);
  for (const row of rows.values()) if (row.field) take(row);
}

// Show another value, as if it had been entered.
function enter(row, value) {
  if (row.field) {
    values = { ...values, [row.place]: value };
    write(row);
    props.value = JSON.stringify(values);
    drawApplying();
    return;
  }
  const field = fieldOf(row); // Gradio's: it hears what a keyboard would do
  const kind = field.tagName === "TEXTAREA" ? HTMLTextAreaElement : HTMLInputElement;
  field.focus({ preventScroll: true });
  Object.getOwnPropertyDescriptor(kind.prototype, "value").set.call(field, value ?? "");
  for (const event of ["input", "change"]) field.dispatchEvent(new Event(event, { bubbles: true }));
  if (field.role === "listbox") field.dispatchEvent(new KeyboardEvent("keydown", { key: "Enter", bubbles: true }));
}

// ---- marks

const applies = (row) =>
  !row.when.length ||
  row.when.some((place) =>
    place === "dataset.class_folders" ? /class_images/.test(values["dataset.concepts"]) : Boolean(values[place]),
  );

// Only what applies is shown, and what was changed.
function drawApplying() {
  for (const row of rows.values()) if (row.node) row.node.hidden = !applies(row) && !(row.place in usual);
}

function drawMark(row) {
  const changed = row.place in usual;
  const marked = JSON.stringify([changed && usual[row.place], wrong[row.place]]);
  if (!row.mark || row.mark.shown === marked) return;
  const inside = row.mark.contains(document.activeElement);
  row.mark.shown = marked;
  row.mark.replaceChildren();
  if (wrong[row.place]) row.mark.append(make("p", "wrong", `⚠ ${wrong[row.place]}`));
  if (changed) {
    const before = usual[row.place];
    const shown = before === "" || before === null ? "–" : before === true ? words.on : before === false ? words.off : before;
    row.mark.append(button("reset", fill(words.reset, { value: shown }), () => enter(row, before)));
  }
  const field = fieldOf(row);
  field?.setAttribute("aria-invalid", String(Boolean(wrong[row.place])));
  if (inside) field?.focus({ preventScroll: true }); // where a keyboard continues when its button is gone
}

function drawMarks() {
  for (const row of rows.values()) {
    if (!row.listed && !row.mark) document.getElementById(row.id)?.closest(".setting-row")?.append(makeMark(row));
    drawMark(row);
  }
  drawApplying();
}

// ---- steps of the arrow keys

function stepped(row, value, up) {
  const { low, high, step } = row;
  let next;
  if (step) next = Number((value + (up ? step : -step)).toPrecision(12));
  else if (value > 0) {
    const power = 10 ** Math.floor(Math.log10(value) + 1e-9);
    const ladder = [power / 10, power].flatMap((unit) => FACTORS.map((factor) => Number((factor * unit).toPrecision(6))));
    next = up ? ladder.find((rung) => rung > value * 1.001) : ladder.findLast((rung) => rung < value * 0.999);
  } else next = 1e-4;
  if (row.step === 64) next = up ? Math.floor(value / 64 + 1) * 64 : Math.ceil(value / 64 - 1) * 64;
  return Math.min(Math.max(next, low ?? -Infinity), high ?? Infinity);
}

document.addEventListener(
  "keydown",
  (event) => {
    if (event.key !== "ArrowUp" && event.key !== "ArrowDown") return;
    if (event.ctrlKey || event.altKey || event.metaKey || event.target.type !== "number") return;
    const row = [...rows.values()].find((one) => fieldOf(one) === event.target);
    if (!row) return;
    event.preventDefault();
    enter(row, stepped(row, Number(event.target.value), event.key === "ArrowUp"));
  },
  true,
);
