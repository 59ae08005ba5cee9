// A setting's field, in the list or Gradio's own, and what stands beside it.

const FACTORS = [1, 1.5, 2, 3, 5, 7, 10]; // between two powers of ten, for learning rates

function makeField(row) {
  const field = document.createElement({ choice: "select", texts: "textarea" }[row.kind] ?? "input");
  field.id = row.id;
  field.className = "desk-input";
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
  row.mark = make("div", "mark");
  row.node.dataset.kind = row.kind;
  const label = Object.assign(make("label", "label", row.label), { htmlFor: row.id });
  const help = Object.assign(make("p", "help", row.help), { id: `${row.id}-help` });
  row.dot = make("span", "dot");
  const named = make("div", "named");
  named.append(label, row.dot);
  if (row.kohya) named.append(make("span", "kohya", `kohya: ${row.kohya}`));
  named.append(help);
  const holder = make("div", "held");
  holder.append(row.field);
  if (row.unit) holder.append(make("span", "unit", row.unit));
  row.node.append(named, holder, row.mark);
  return row.node;
}

// The field that a person sees: ours, or inside Gradio's control. None if it is in another room.
function fieldOf(row) {
  if (!row.field?.isConnected) row.field = document.getElementById(row.id)?.querySelector("input, textarea") ?? row.field;
  return row.field;
}

const rowOf = (field) => [...rows.values()].find((row) => fieldOf(row) === field);

function read(row) {
  const field = fieldOf(row);
  if (row.kind === "switch") return field.checked;
  if (row.kind === "whole" || row.kind === "number") return field.value === "" ? null : Number(field.value);
  return field.value;
}

// Show a value. Gradio's fields hear it as they hear a keyboard.
function write(row, value) {
  const field = fieldOf(row);
  if (!field || same(read(row), value)) return;
  if (row.kind === "switch") field.checked = Boolean(value);
  else {
    const kinds = { TEXTAREA: HTMLTextAreaElement, SELECT: HTMLSelectElement };
    const kind = kinds[field.tagName] ?? HTMLInputElement;
    Object.getOwnPropertyDescriptor(kind.prototype, "value").set.call(field, value ?? "");
    if (!row.node) field.dispatchEvent(new CustomEvent("input", { bubbles: true, detail: "desk" }));
  }
}

// Show another value, as if it had been entered.
function enter(row, value) {
  write(row, value);
  row.dirty = true;
  return keep(true);
}

const applies = (row) =>
  !row.when.length ||
  row.when.some((place) =>
    place === "dataset.class_folders"
      ? /class_images/.test(state.values["dataset.concepts"])
      : Boolean(state.values[place]),
  );

function shownValue(row, value) {
  if (value === true) return words.on;
  if (value === false) return words.off;
  if (same(value, "")) return "–";
  return row.unit ? `${value} ${row.unit}` : String(value);
}

function drawMark(row) {
  const changed = row.place in state.usual;
  const wrong = state.wrong[row.place];
  const marked = JSON.stringify([changed && state.usual[row.place], wrong]);
  const field = fieldOf(row);
  if (field && !row.mark) {
    row.mark = make("div", "mark");
    document.getElementById(row.id).closest(".setting-row")?.append(row.mark);
  }
  if (!row.mark || row.mark.shown === marked) return;
  if (row.dot) row.dot.hidden = !changed;
  const inside = row.mark.contains(document.activeElement);
  row.mark.shown = marked;
  row.mark.replaceChildren();
  if (wrong) row.mark.append(make("p", "wrong", `⚠ ${wrong}`));
  if (changed) {
    const before = state.usual[row.place];
    const label = same(before, "") ? words.clear : fill(words.reset, { value: shownValue({}, before) });
    row.mark.append(button("reset", label, () => enter(row, before)));
  }
  field.setAttribute("aria-invalid", String(Boolean(wrong)));
  if (inside) field.focus({ preventScroll: true }); // where a keyboard continues when its button is gone
}

// Only what applies is shown, and what was changed.
function drawRows() {
  for (const row of rows.values()) {
    if (!fieldOf(row)) continue;
    if (!row.dirty && !row.sent) write(row, state.values[row.place]); // else what was typed since is newer
    drawMark(row);
    drawRange(row);
    if (row.node) row.node.hidden = !applies(row) && !(row.place in state.usual);
  }
  if (!rows.get("adapter.rank").dirty && !rows.get("adapter.alpha").dirty) held = state.strength ?? held;
}

// ---- steps of the arrow keys

function stepped({ low, high, step }, value, up) {
  let next;
  if (step === 0 && value > 0) {
    const power = 10 ** Math.floor(Math.log10(value) + 1e-9);
    const ladder = [power / 10, power].flatMap((unit) => FACTORS.map((factor) => Number((factor * unit).toPrecision(6))));
    next = up ? ladder.find((rung) => rung > value * 1.001) : ladder.findLast((rung) => rung < value * 0.999);
  } else if (step === 0) next = 1e-4;
  else if (step > 1) next = up ? Math.floor(value / step + 1) * step : Math.ceil(value / step - 1) * step;
  else next = Number((value + (up ? step : -step)).toPrecision(12));
  return Math.min(Math.max(next, low ?? -Infinity), high ?? Infinity);
}

function hearArrow(event) {
  if (event.key !== "ArrowUp" && event.key !== "ArrowDown") return;
  if (event.ctrlKey || event.altKey || event.metaKey || event.target.type !== "number") return;
  const row = rowOf(event.target);
  if (row || !state) event.preventDefault(); // else a number that nobody has seen yet would go up by 1
  if (!row) return;
  row.dirty = false;
  write(row, stepped(row, Number(event.target.value), event.key === "ArrowUp"));
  touched(event);
}

// ---- the four that matter: a slider below the number

const POWERS = Array.from({ length: 8 }, (_, power) => 2 ** (power + 1)); // 2 … 256
const TENS = (low, high) =>
  Array.from({ length: high - low }, (_, i) => 10 ** (low + i)).flatMap((unit) =>
    FACTORS.slice(0, -1).map((factor) => Number((factor * unit).toPrecision(6))),
  );
const STOPS = {
  "adapter.rank": POWERS,
  "adapter.alpha": [1, ...POWERS],
  "optimizer.learning_rate": [...TENS(-6, -1), 0.1].slice(3), // 3e-6 … 0.1
  "dataset.views": [...new Set(TENS(0, 3).map(Math.ceil)), 1000],
};

function makeRanges() {
  if (!document.querySelector(".four")) return;
  for (const [place, stops] of Object.entries(STOPS)) {
    const row = rows.get(place);
    const holder = document.getElementById(row.id)?.closest(".setting-row");
    const range = Object.assign(make("input", "range"), { type: "range", min: 0, max: stops.length - 1, step: 1 });
    range.setAttribute("aria-label", row.label);
    range.oninput = () => {
      row.dirty = false;
      write(row, stops[range.value]);
      touched({ target: fieldOf(row) });
    };
    row.dot = make("span", "dot");
    const beside = make("span", "beside kohya", row.kohya && `kohya: ${row.kohya}`);
    beside.append(row.dot);
    row.range = range;
    document.getElementById(row.id).after(range);
    holder.append(beside);
  }
}

function drawRange(row) {
  if (!row.range) return;
  const value = Number(state.values[row.place]) || 0;
  const stops = STOPS[row.place];
  const nearest = stops.reduce((best, stop, index) => (Math.abs(Math.log(stop / value)) < Math.abs(Math.log(stops[best] / value)) ? index : best), 0);
  row.range.value = nearest;
  row.range.style.setProperty("--share", nearest / (stops.length - 1));
  row.range.setAttribute("aria-valuetext", String(value));
}

// Whether rank and alpha keep the learning strength is the person's own choice, in every project and room.
const KEEPING = "atelier.keep_strength";

function makeKeeping() {
  const box = document.querySelector("#keep-strength input");
  if (!box) return;
  if (localStorage.getItem(KEEPING) === "no") box.click();
  box.addEventListener("change", () => localStorage.setItem(KEEPING, box.checked ? "yes" : "no"));
}
