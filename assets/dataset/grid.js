// The grid of the Dataset page. gr.HTML runs this text, and the files that belong to it, once per element, as the body
// of a function that is given `element`, `props`, `server` and `watch`. Texts of users only ever become textContent or
// a field's value, never HTML. Only the cards in view exist, and only their captions and thumbnails are fetched.

const PREFIX = "captions";
const CARD = { width: 230, height: 306, gap: 14 }; // px; the width at least, as in dataset.css
const BEYOND = 1; // rows above and below the window that are there already
const PAUSE = 80; // ms between two questions for cards while the page is scrolled
const AGAIN = 2000; // ms until a server that gave no answer is asked again

const above = () =>
  document.getElementById("header").offsetHeight +
  (getComputedStyle(part("bar")).position === "sticky" ? part("bar").offsetHeight : 0); // px that lie over the cards
const part = (name) => element.querySelector(`.captions-${name}`);
const fields = () => [...element.querySelectorAll(".captions-field")];
const dirty = (field) => field.value !== (field.sent ?? field).caption; // there is something to save
const settled = (field) => !field.sent && !dirty(field); // the server has what the field shows

let data = null; // what the server said last
let words = {};
let names = []; // pictures of the choice, in order; kept while captions change, so that none moves under the hand
const cards = new Map(); // what is known of pictures, by name
const shown = new Map(); // the cards that exist, by name
const picked = new Set(); // pictures chosen one by one
const filter = { choice: "all", tags: [], text: "", among: [] };
let columns = 1;
let turn = Promise.resolve(); // one change after the other: an answer tells the whole page

// Give a list new children; the focus stays with the child of the same key, or goes to the list's heading.
function refill(list, children) {
  const inside = list.contains(document.activeElement);
  const { key } = document.activeElement.dataset;
  list.replaceChildren(...children);
  if (!inside) return;
  const same = [...list.querySelectorAll("[data-key]")].find((one) => one.dataset.key === key);
  (same ?? list.closest("details").querySelector("summary")).focus({ preventScroll: true });
}

function write(name, text) {
  const node = part(name);
  if (node.textContent !== text) node.textContent = text;
  node.hidden = !text;
}

// kind: "news", "hint" or "failure"
function say(text, kind = "news") {
  part("status").textContent = text;
  part("status").dataset.kind = kind;
  part("picture-status").textContent = kind === "hint" ? "" : text; // over the open picture, where the other is hidden
}

// Ask the server, in turn, for something that changes what the page shows.
function ask(what, more = {}) {
  say(words.waiting);
  turn = turn.then(async () => {
    try {
      const question = { folder: data.folder, ...filter, shown: [...shown.keys()], ...more };
      const answer = await server[what](question);
      if (answer.error) say(answer.error, "failure");
      else take(answer);
      return answer;
    } catch {
      say(words.offline, "failure");
      return { error: words.offline };
    }
  });
  return turn;
}

// Ask for something to be looked at: no turn is waited for, and nothing is told while it is under way.
async function peek(what, more = {}) {
  const lost = { error: words.offline, lost: true };
  try {
    return (await server[what]({ folder: data.folder, ...filter, ...more })) ?? lost; // Gradio's word for no answer
  } catch {
    return lost;
  }
}

function take(answer) {
  for (const name of answer.changed ?? []) cards.delete(name);
  for (const card of answer.cards ?? []) cards.set(card.name, card);
  if (answer.names) names = answer.names;
  if (answer.counts) data = { ...data, ...answer };
  draw();
  if (answer.focus && names.includes(answer.focus)) go(names.indexOf(answer.focus));
  say(answer.status || words.keys, answer.status ? "news" : "hint");
  element.dispatchEvent(new CustomEvent("changed", { detail: answer.changed ?? [] }));
}

// Other pictures: from the first of them on.
function choose(change) {
  Object.assign(filter, change);
  ask("show", { shown: [] }).then((answer) => {
    if (answer?.error) return;
    const top = part("body").getBoundingClientRect().top - above();
    if (top < 0) scrollBy(0, top);
  });
}

// The pictures that a change to many is made to, by name, so that no other is: those picked, else all that are shown.
const scope = () => (picked.size ? [...picked] : names);
const scopeSize = () => picked.size || names.length;

// ---- cards

// A text field of one picture: `card` is the picture's name, `caption` what the server has, `sent` what is on its way.
async function save(field) {
  if (!dirty(field) || field.readOnly) return;
  const sent = (field.sent = { name: field.card, caption: field.value });
  const answer = await ask("save", sent);
  if (field.sent !== sent) return; // a later text is on its way, or the field is another picture's
  field.sent = null;
  if (!answer.error) field.caption = sent.caption;
  if (cards.has(sent.name)) hear(field, cards.get(sent.name).caption ?? "");
  drawNote(field);
}

// Take over the caption that the server has, unless the user's own text is still to be saved.
function hear(field, caption) {
  const follows = settled(field);
  if (!field.sent) field.caption = caption;
  if (follows && field.value !== caption) field.value = caption;
}

// The card's note: what was changed here, or that the text is not saved yet.
function drawNote(field) {
  const item = field.parentElement;
  const note = item.querySelector(".captions-note");
  if (!note) return; // the open picture's field is on no card
  const text = settled(field) ? field.note : words.unsaved;
  if (note.textContent !== text) note.textContent = text;
  item.classList.toggle("captions-changed", Boolean(text));
}

// Whether a picture's card is here, with its caption: while the folder is being read, cards come without.
const known = (name) => cards.has(name) && cards.get(name).caption !== null;

function drawCard(item, name) {
  const card = cards.get(name);
  const field = item.querySelector(".captions-field");
  field.readOnly = !known(name);
  field.placeholder = field.readOnly ? "…" : "";
  hear(field, card.caption ?? "");
  field.note = card.note || card.marks;
  const image = item.querySelector("img");
  if (image.getAttribute("src") !== card.thumb) image.src = card.thumb;
  item.querySelector(".captions-size").textContent = card.left_out ? words.not_trained : card.size;
  item.classList.toggle("captions-left-out", card.left_out);
  drawNote(field);
}

function newCard(name) {
  const item = make("li", "card");
  const open = button("open", "", () => element.dispatchEvent(new CustomEvent("open", { detail: name })));
  open.setAttribute("aria-label", fill(words.open_picture, { name }));
  open.append(Object.assign(make("img", "thumb"), { decoding: "async", alt: "" }));
  const head = make("div", "head");
  const pick = Object.assign(make("input", "pick"), { type: "checkbox", checked: picked.has(name) });
  pick.setAttribute("aria-label", fill(words.pick, { name }));
  pick.onclick = (event) => pickUpTo(name, pick.checked, event.shiftKey);
  head.append(pick, Object.assign(make("span", "name", name), { title: name }), make("span", "size"));
  const field = Object.assign(make("textarea", "field"), { spellcheck: false, readOnly: true });
  Object.assign(field, { card: name, caption: "", note: "", sent: null });
  field.setAttribute("aria-label", fill(words.caption_of, { name }));
  item.append(open, head, field, make("p", "note"));
  return item;
}

// Everything between the card picked last and this one, with Shift.
let lastPicked = null;
function pickUpTo(name, on, whole) {
  const ends = [names.indexOf(name), whole && lastPicked !== null ? names.indexOf(lastPicked) : names.indexOf(name)];
  for (const one of names.slice(Math.min(...ends), Math.max(...ends) + 1)) picked[on ? "add" : "delete"](one);
  lastPicked = name;
  drawPicked();
}

function drawPicked() {
  for (const [name, item] of shown) item.querySelector(".captions-pick").checked = picked.has(name);
  part("picked").hidden = !picked.size;
  write("picked-count", fill(words.picked, { count: picked.size }));
  element.dispatchEvent(new CustomEvent("scope"));
}

// ---- the part of the grid that is in view

function inView() {
  const row = CARD.height + CARD.gap;
  const top = -part("grid").getBoundingClientRect().top;
  const first = Math.max(0, Math.floor(top / row) - BEYOND);
  const last = Math.floor((top + innerHeight) / row) + BEYOND;
  return [first * columns, Math.min(names.length, (last + 1) * columns)];
}

// Cards in view are there and in their place, all others are not; one that is being edited stays.
function place() {
  const grid = part("grid");
  const wide = grid.clientWidth;
  if (!data || !wide) return;
  columns = Math.max(1, Math.floor((wide + CARD.gap) / (CARD.width + CARD.gap)));
  grid.style.height = `${Math.ceil(names.length / columns) * (CARD.height + CARD.gap)}px`;
  const [first, last] = inView();
  const wanted = new Set(names.slice(first, last));
  for (const [name, item] of shown) {
    const field = item.querySelector(".captions-field");
    if (wanted.has(name) || item.contains(document.activeElement) || !settled(field)) continue;
    item.querySelector("img").removeAttribute("src"); // a thumbnail still on its way is no longer waited for
    item.remove();
    shown.delete(name);
  }
  for (const name of wanted) if (!shown.has(name)) shown.set(name, newCard(name));
  arrange(grid, (wide + CARD.gap) / columns);
  fetchSoon();
}

function arrange(grid, step) {
  const order = [...shown].map(([name, item]) => [names.indexOf(name), name, item]).sort(([a], [b]) => a - b);
  order.forEach(([at, name, item], i) => {
    item.hidden = at < 0; // filtered away with a text that is not saved yet
    const left = (at % columns) * step, top = Math.floor(at / columns) * (CARD.height + CARD.gap);
    item.style.cssText = `width: ${step - CARD.gap}px; transform: translate(${left}px, ${top}px)`;
    item.setAttribute("aria-posinset", at + 1);
    item.setAttribute("aria-setsize", names.length);
    if (grid.children[i] !== item) grid.insertBefore(item, grid.children[i] ?? null); // the Tab key goes by this order
    if (cards.has(name)) drawCard(item, name);
  });
}

let fetching = false;
const lacking = () => [...shown.keys()].filter((name) => !(data.whole ? known(name) : cards.has(name)));
function fetchSoon() {
  if (fetching || !lacking().length) return;
  fetching = true;
  setTimeout(async () => {
    const missing = lacking();
    const answer = missing.length ? await peek("cards", { shown: missing }) : {};
    fetching = false;
    if (answer.error) return say(answer.error, "failure");
    for (const card of answer.cards ?? []) cards.set(card.name, card);
    if (answer.cards?.length || missing.length === 0) place();
  }, PAUSE);
}

// Show the card of this number, clear of the bar above, and put the caret into it.
function go(at, caret = null) {
  if (at < 0 || at >= names.length) return false;
  const row = CARD.height + CARD.gap;
  const top = part("grid").getBoundingClientRect().top + Math.floor(at / columns) * row;
  const clear = above() + 8;
  const end = innerHeight - document.getElementById("bar").offsetHeight - 8;
  if (top < clear) scrollBy(0, top - clear);
  else if (top + CARD.height > end) scrollBy(0, top + CARD.height - end);
  place();
  const field = shown.get(names[at])?.querySelector(".captions-field");
  field?.focus({ preventScroll: true });
  if (field && caret !== null) field.setSelectionRange(caret === "end" ? field.value.length : 0, caret === "end" ? field.value.length : 0);
  return Boolean(field);
}

// ---- keys

// Whether an arrow key has nowhere to go within the text; with Ctrl it always leaves.
function leaves(field, event) {
  const vertical = ["ArrowUp", "ArrowDown"].includes(event.key);
  if (event.ctrlKey && vertical) return true;
  if (event.shiftKey || event.ctrlKey || event.altKey || event.metaKey) return false;
  if (field.selectionStart !== field.selectionEnd) return false;
  const atStart = field.selectionStart === 0, atEnd = field.selectionStart === field.value.length;
  return vertical ? atStart || atEnd : event.key === "ArrowLeft" ? atStart : atEnd;
}

function pressInField(field, event) {
  const at = names.indexOf(field.card);
  const step = { ArrowLeft: -1, ArrowRight: 1, ArrowUp: -columns, ArrowDown: columns }[event.key];
  if (step && leaves(field, event)) {
    if (go(at + step, step < 0 ? "start" : "end")) event.preventDefault();
  } else if (event.key === "Enter" && event.ctrlKey) {
    event.preventDefault();
    save(field);
    element.dispatchEvent(new CustomEvent("open", { detail: field.card }));
  } else if (event.key === "Enter") {
    event.preventDefault(); // a caption is one line
    if (!go(at + 1, "end")) save(field); // leaving the field saves it
  } else if (event.key === "Escape" && dirty(field)) {
    field.value = (field.sent ?? field).caption;
    drawNote(field);
  }
}

// "take_back" for Ctrl+Z, "do_again" for Ctrl+Shift+Z and Ctrl+Y.
function stepOf(event) {
  if (!event.ctrlKey && !event.metaKey) return null;
  const key = event.key.toLowerCase();
  if (key === "z") return event.shiftKey ? "do_again" : "take_back";
  return key === "y" ? "do_again" : null;
}

function press(event) {
  const { target } = event;
  const field = element.contains(target) && target.matches(".captions-field") ? target : null;
  if (!data || !element.isConnected || event.isComposing) return; // composing: Enter chooses a Chinese or Japanese word
  const step = stepOf(event);
  const typed = field ? dirty(field) : target.matches("input:not([type=checkbox]):not([type=range]), textarea");
  if (step && !typed && (target === document.body || element.contains(target))) {
    event.preventDefault(); // within a text just typed, the browser undoes
    if (data[step === "take_back" ? "undo" : "redo"] !== null) ask(step);
  } else if (field) pressInField(field, event);
}

// ---- the page around the grid

function drawChoices() {
  const buttons = part("choices").children;
  Object.entries(data.counts).forEach(([choice, count], i) => {
    const node = buttons[i] ?? part("choices").appendChild(button("choice", "", () => choose({ choice, among: [] })));
    node.textContent = fill(words[choice], { count: data.whole || choice === "all" ? count : "…" });
    node.setAttribute("aria-pressed", String(choice === filter.choice && !filter.among.length));
  });
}

function drawSteps() {
  for (const step of ["undo", "redo"]) {
    part(step).textContent = words[step];
    part(step).disabled = data[step] === null;
    part(step).title = data[step] ?? "";
  }
}

function draw() {
  part("grid").parentElement.closest(".captions").hidden = !data;
  if (!data) return;
  write("summary", data.summary);
  drawChoices();
  drawSteps();
  const narrowed = filter.tags.length || filter.text || filter.among.length;
  write("empty", names.length ? "" : narrowed ? words["empty.found"] : words[`empty.${filter.choice}`]);
  place();
  drawPicked();
  element.dispatchEvent(new CustomEvent("drawn"));
}

function name() {
  for (const text of ["pick-all", "pick-none", "leave-out", "take-in"]) write(text, words[text.replace("-", "_")]);
  part("choices").setAttribute("aria-label", words.choose);
  part("search").setAttribute("aria-label", words.search);
  part("search").placeholder = words.search;
}

let searching = null;
part("search").oninput = ({ target }) => {
  clearTimeout(searching);
  searching = setTimeout(() => choose({ text: target.value }), 250);
};
part("undo").onclick = () => ask("take_back");
part("redo").onclick = () => ask("do_again");
part("pick-none").onclick = () => { picked.clear(); drawPicked(); };
part("pick-all").onclick = () => { names.forEach((one) => picked.add(one)); drawPicked(); };
part("leave-out").onclick = () => ask("leave_out", { names: scope(), left_out: true });
part("take-in").onclick = () => ask("leave_out", { names: scope(), left_out: false });
element.addEventListener("focusout", ({ target }) => target.matches(".captions-field") && save(target));
element.addEventListener("input", ({ target }) => target.matches(".captions-field") && drawNote(target));
document.addEventListener("keydown", press);
document.addEventListener("scroll", () => requestAnimationFrame(place), { passive: true });
new ResizeObserver(place).observe(part("main"));
// For the bar below: Train waits until every caption is saved, and does not train where one could not be.
window.captions = {
  saved: async () => {
    await Promise.all(fields().map(save));
    await turn;
    return fields().every(settled);
  },
  shown: false, // whether the pictures in view are there
};
window.addEventListener("beforeunload", (event) => !fields().every(settled) && event.preventDefault()); // asks the user
