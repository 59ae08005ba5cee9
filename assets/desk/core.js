// The desk: keeps what is entered in the project's file and shows what the server says of it. gr.HTML runs this text,
// and the files that belong to it, once per page, as the body of a function that is given `element`, `props`, `server`
// and `watch`. Texts of users only ever become textContent or a field's value; HTML is our server's, which escapes them.

const TABS = new BroadcastChannel("atelier"); // tells other tabs that a project was changed, or has another name

const part = (name) => document.querySelector(`.desk-${name}`);
const fill = (text, values) => text.replace(/\{(\w+)\}/g, (place, name) => values[name] ?? place);
const same = (one, other) => (one ?? "") === (other ?? "");

const rows = new Map(); // what the server says of each setting, by its place, with `node` and `field` where they are made
let words = {};
let state = null; // what the server said last
let held = null; // the learning strength to keep when rank or alpha changes
let busy = 0; // questions on their way: what is typed meanwhile is kept next
let unnamed = false; // a name was typed, and a key may follow
let ready = null; // kept once the server has answered
let turn = Promise.resolve(); // one change after the other

function make(kind, name, text = "") {
  const node = document.createElement(kind);
  node.className = name
    .split(" ")
    .map((one) => `desk-${one}`)
    .join(" ");
  if (text) node.textContent = text;
  return node;
}

function button(name, text, pressed) {
  const node = Object.assign(make("button", name, text), { type: "button" });
  node.onclick = pressed;
  return node;
}

function put(name, html) {
  const place = part(name);
  if (place && place.shown !== html) place.innerHTML = place.shown = html;
}

// ---- what the server says

function take(answer) {
  if (answer?.error) return drawProblem(answer.error);
  if (!answer) return drawProblem(words.offline);
  const before = state;
  state = answer;
  if (before && before.project !== state.project) rename(before.project);
  props.value = state.project;
  drawRows();
  drawChoices(before);
  drawAside();
  drawBar();
  drawImages();
}

function rename(before) {
  const address = new URL(location);
  address.search = new URLSearchParams({ project: state.project });
  history.replaceState(history.state, "", address);
  if (before) TABS.postMessage({ project: before, named: state.project });
}

function ask(what, question) {
  busy += 1;
  turn = turn.then(async () => {
    try {
      take(await server[what]({ project: state.project, ...question }));
      TABS.postMessage({ project: state.project });
    } catch {
      drawProblem(words.offline);
    }
    busy -= 1;
    if (!busy) keep(false);
  });
  return turn;
}

const choose = (what, value = "") => flush().then(() => ask("desk_choose", { what, value }));

// ---- what is entered

// What fields show and the server does not know yet.
function pending() {
  const changes = {};
  for (const row of rows.values()) {
    if (!row.dirty) continue;
    row.dirty = false;
    const value = read(row);
    if (!same(state.values[row.place], value)) changes[row.place] = value;
  }
  return changes;
}

function keep(settled) {
  const changes = pending();
  unnamed ||= "output.name" in changes;
  if (!Object.keys(changes).length && !(settled && unnamed)) return turn;
  if (settled) unnamed = false;
  Object.assign(state.values, changes);
  const keeping = document.querySelector("#keep-strength input")?.checked;
  return ask("desk_enter", { changes, settled, held: keeping ? held : null });
}

// Everything that was entered is kept; returns the project's name.
async function flush() {
  await ready;
  if (state) await keep(true);
  return state?.project ?? "";
}

function touched(event) {
  const row = rowOf(event.target);
  if (!row) return;
  row.dirty = true;
  if (!busy) keep(false); // at once: the page may be left with the next key
}

async function reload() {
  const answer = await server.desk_open({ project: props.value || state.project });
  if (part("images")) part("images").folder = null; // what is in it may have changed
  take(answer.state);
}

async function look() {
  if (document.hidden || !state?.project) return;
  const news = await server.desk_news({ project: state.project, changes: state.changes });
  if (news && !news.error) take(news);
}

function hearTabs({ data }) {
  if (data.project !== state?.project) return;
  if (data.named) state.project = data.named;
  look();
}
