// The desk: keeps what is entered in the project's file and shows what the server says of it. gr.HTML runs this text,
// and the files that belong to it, once per page, as the body of a function that is given `element`, `props`, `server`
// and `watch`. Texts of users only ever become textContent or a field's value; HTML is our server's, which escapes them.

const PREFIX = "desk";
const AGAIN = 2000; // ms until a server that gave no answer is asked again
const TABS = new BroadcastChannel("atelier"); // tells other tabs that a project was changed, or has another name

const part = (name) => document.querySelector(`.desk-${name}`);
const same = (one, other) => (one ?? "") === (other ?? "");

const rows = new Map(); // what the server says of each setting, by its place, with `node` and `field` where they are made
let words = {};
let state = null; // what the server said last
let held = null; // the learning strength to keep when rank or alpha changes
let busy = 0; // questions on their way: what is typed meanwhile is kept next
let failed = false; // what was entered last could not be kept
let unnamed = false; // a name was typed, and a key may follow
let ready = null; // kept once the server has answered
let turn = Promise.resolve(); // one change after the other

function put(name, html) {
  const place = part(name);
  if (place && place.shown !== html) place.innerHTML = place.shown = html;
}

// ---- what the server says

// Returns whether there is an answer to show.
function take(answer) {
  if (!answer || answer.error) {
    drawProblem(answer?.error ?? words.offline);
    return false;
  }
  const before = state;
  state = answer;
  if (before && before.project !== state.project) {
    drawAddress();
    if (before.project) TABS.postMessage({ project: before.project, named: state.project });
  }
  props.value = state.project;
  drawRows();
  drawChoices(before);
  drawHits();
  drawAside();
  drawBar();
  drawSwitch();
  drawNav();
  drawImages();
  return true;
}

function drawAddress() {
  const address = new URL(location);
  address.search = new URLSearchParams({ project: state.project });
  history.replaceState(history.state, "", address);
}

// Ask for something to be looked at; without an answer, why there is none.
async function peek(what, question = {}) {
  try {
    return (await server[what](question)) ?? { error: words.offline, lost: true }; // null: Gradio's word for no answer
  } catch {
    return { error: words.offline, lost: true };
  }
}

// Change something: one question after the other. What could not be kept is entered still, and is kept next.
function ask(what, question, unkept = {}) {
  busy += 1;
  const sent = Object.keys(unkept).map((place) => rows.get(place));
  for (const row of sent) row.sent = (row.sent ?? 0) + 1;
  turn = turn.then(async () => {
    const answer = await peek(what, { project: state.project, ...question });
    for (const row of sent) row.sent -= 1;
    failed = !take(answer);
    busy -= 1;
    if (failed) {
      Object.assign(state.values, unkept);
      for (const place of Object.keys(unkept)) rows.get(place).dirty = true;
      if (answer.lost && Object.keys(unkept).length) setTimeout(() => keep(false), AGAIN);
      return;
    }
    TABS.postMessage({ project: state.project });
    if (!busy) keep(false);
  });
  return turn;
}

const choose = (what, value = "") => flush().then(() => ask("desk_choose", { what, value }), () => {});

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
  const unkept = Object.fromEntries(Object.keys(changes).map((place) => [place, state.values[place]]));
  Object.assign(state.values, changes);
  const keeping = document.querySelector("#keep-strength input")?.checked;
  return ask("desk_enter", { changes, settled, held: keeping ? held : null }, unkept);
}

// Everything that was entered is kept; returns the project's name. It throws where it could not be: nothing else is to
// be trained than what stands there.
async function flush() {
  await ready;
  const captioned = (await window.captions?.saved()) ?? true;
  if (state) await keep(true);
  if (!captioned) drawProblem(words.unsaved_caption);
  if (failed || !captioned) throw new Error(captioned ? words.offline : words.unsaved_caption);
  return state?.project ?? "";
}

function touched(event) {
  const row = rowOf(event.target);
  if (!row) return;
  row.dirty = true;
  if (!busy) keep(false); // at once: the page may be left with the next key
}

async function reload() {
  const answer = await peek("desk_open", { project: props.value || state.project });
  if (part("images")) part("images").asked = null; // what is in it may have changed
  take(answer.state ?? answer);
}

// The images may be others, though nothing was entered.
async function refresh() {
  if (!state?.project) return;
  const news = await peek("desk_news", { project: state.project, changes: -1 });
  if (news.project) take(news);
}

async function look() {
  if (document.hidden || !state?.project) return;
  const news = await peek("desk_news", { project: state.project, changes: state.changes });
  if (!news.error && news.project) take(news);
}

function hearTabs({ data }) {
  if (data.project !== state?.project) return;
  if (data.named) {
    state.project = props.value = data.named;
    drawAddress();
  }
  look();
}
