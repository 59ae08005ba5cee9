// The caption grid. gr.HTML runs this text once per element, as the body of a function that is given `element`,
// `props`, `server` and `watch`. Texts of users only ever become textContent or a field's value, never HTML.

const part = (name) => element.querySelector(`.captions-${name}`);
const fields = () => [...element.querySelectorAll(".captions-field")];
const dirty = (field) => field.value !== field.saved;

let data = null; // what the server said last
let turn = Promise.resolve(); // one question after the other: an answer tells the whole page

function make(kind, name, text = "") {
  const node = document.createElement(kind);
  node.className = `captions-${name}`;
  node.textContent = text;
  return node;
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
}

// Ask the server for what the page shows next.
function ask(what, more = {}) {
  say(data.words.waiting);
  turn = turn.then(async () => {
    const shown = data.cards.map((card) => card.name);
    try {
      const answer = await server[what]({ folder: data.folder, choice: data.choice, shown, ...more });
      if (answer.error) return say(answer.error, "failure");
      data = answer;
      draw();
    } catch {
      say(data.words.offline, "failure");
    }
  });
}

function turnPage(way) {
  const { cards } = data;
  if (!data[way]) return;
  ask("show", way === "later" ? { after: cards[cards.length - 1].name } : { before: cards[0].name });
}

function save(field) {
  if (!dirty(field)) return;
  field.sent = field.value;
  ask("save", { name: field.card, text: field.value });
}

// The card's note: what was changed here, or that the text is not saved yet.
function drawNote(field) {
  const note = field.parentElement.querySelector(".captions-note");
  const text = dirty(field) ? data.words.unsaved : field.note;
  if (note.textContent !== text) note.textContent = text;
  field.parentElement.classList.toggle("captions-changed", Boolean(text));
}

function drawCard(field, card) {
  const untouched = !dirty(field) || field.value === field.sent; // else the user went on typing: keep that
  field.saved = card.caption;
  field.note = card.note;
  if (untouched && field.value !== card.caption) field.value = card.caption;
  drawNote(field);
}

function newCard(card, number) {
  const item = make("li", "card");
  const picture = make("img", "thumb");
  Object.assign(picture, { loading: "lazy", decoding: "async", alt: "", src: card.thumb });
  const head = make("div", "head");
  head.append(make("span", "name", card.name), make("span", "size", card.size));
  const field = make("textarea", "field");
  Object.assign(field, { rows: 3, spellcheck: false, card: card.name, saved: "", sent: null });
  field.setAttribute("aria-label", card.label);
  field.setAttribute("aria-describedby", `captions-note-${number}`);
  const note = make("p", "note");
  note.id = `captions-note-${number}`;
  item.append(picture, head, field, note);
  return item;
}

function drawCards() {
  const present = fields();
  const same = present.length === data.cards.length && present.every((f, i) => f.card === data.cards[i].name);
  if (!same) part("grid").replaceChildren(...data.cards.map(newCard));
  fields().forEach((field, i) => drawCard(field, data.cards[i]));
}

function drawChoices() {
  const buttons = part("choices").children;
  data.choices.forEach(([choice, text], i) => {
    const button = buttons[i] ?? part("choices").appendChild(make("button", "choice"));
    button.type = "button";
    button.value = choice;
    if (button.textContent !== text) button.textContent = text;
    button.setAttribute("aria-pressed", String(choice === data.choice));
  });
  part("choices").setAttribute("aria-label", data.words.choose);
}

function draw() {
  part("grid").parentElement.hidden = !data;
  if (!data) return;
  const { words } = data;
  write("summary", data.summary);
  part("problems").replaceChildren(...data.problems.map((text) => make("li", "problem", text)));
  part("problems").hidden = !data.problems.length;
  drawChoices();
  for (const name of ["undo", "train", "earlier", "later"]) write(name, words[name]);
  part("undo").disabled = !data.undoable;
  part("train").href = data.train;
  for (const way of ["earlier", "later"]) part(way).disabled = !data[way];
  part("pager").hidden = !data.earlier && !data.later;
  part("pager").setAttribute("aria-label", words.pages);
  write("place", data.place);
  write("empty", data.empty);
  drawCards();
  say(data.status || words.keys, data.status ? "news" : "hint");
  fields().find((field) => field.card === data.focus)?.focus();
}

// Go `by` captions on, with the caret at the end from which the next key press goes on in the same way.
function move(field, by) {
  const all = fields();
  const next = all[all.indexOf(field) + by];
  if (!next) return false;
  next.focus();
  const caret = by < 0 ? 0 : next.value.length;
  next.setSelectionRange(caret, caret);
  return true;
}

function columns() {
  const tops = fields().map((field) => field.parentElement.offsetTop);
  return tops.filter((top) => top === tops[0]).length;
}

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
  const steps = { ArrowLeft: -1, ArrowRight: 1, ArrowUp: -columns(), ArrowDown: columns() }[event.key];
  if (steps && leaves(field, event)) {
    if (move(field, steps)) event.preventDefault();
  } else if (event.key === "Enter") {
    event.preventDefault(); // a caption is one line
    if (move(field, 1)) return; // leaving the field saves it
    save(field);
    turnPage("later");
  } else if (event.key === "Escape" && dirty(field)) {
    field.value = field.saved;
    drawNote(field);
  }
}

function press(event) {
  const { target } = event;
  const field = element.contains(target) && target.matches(".captions-field") ? target : null;
  if (!data || !element.isConnected || event.isComposing) return; // composing: Enter chooses a Chinese or Japanese word
  if (event.key.toLowerCase() === "z" && (event.ctrlKey || event.metaKey) && !event.shiftKey) {
    if (field ? dirty(field) : target !== document.body && !element.contains(target)) return; // undoes within the text
    event.preventDefault();
    if (data.undoable) ask("take_back");
  } else if (field) pressInField(field, event);
}

element.addEventListener("click", ({ target }) => {
  const button = target.closest("button");
  if (!button) return;
  if (button.matches(".captions-choice")) ask("show", { choice: button.value });
  else if (button.matches(".captions-undo")) ask("take_back");
  else turnPage(button.matches(".captions-later") ? "later" : "earlier");
});
element.addEventListener("focusout", ({ target }) => target.matches(".captions-field") && save(target));
element.addEventListener("input", ({ target }) => drawNote(target));
document.addEventListener("keydown", press);
window.addEventListener("beforeunload", (event) => fields().some(dirty) && event.preventDefault()); // asks the user
watch("value", () => {
  data = JSON.parse(props.value);
  draw();
});
data = JSON.parse(props.value);
draw();
