// The bar: what Train will do, or why it cannot; and the desk as a whole.

function drawBar() {
  const { first, second, notes, problem, uncaptioned } = state.plan;
  const bar = part("bar");
  const shown = JSON.stringify([state.plan, state.smaller]);
  if (!bar || bar.shown === shown) return;
  bar.shown = shown;
  const said = make("div", "said");
  const beside = make("div", "notes");
  const add = (to, name, html) => {
    if (html) to.append(Object.assign(make("div", name), { innerHTML: html }));
  };
  add(said, "problem", problem);
  add(said, "first", first);
  add(said, "second", second);
  for (const note of notes) add(beside, "note", note);
  if (uncaptioned) {
    add(beside, "note", `${uncaptioned} `);
    const link = Object.assign(make("a", "leads closer", words.caption_them), { href: "/dataset#caption" });
    beside.lastChild.append(link);
  }
  if (state.smaller) beside.append(button("soft", state.smaller, () => choose("smaller")));
  bar.replaceChildren(said, ...(beside.childNodes.length ? [beside] : []));
}

function drawProblem(text) {
  const bar = part("bar");
  if (!bar) return;
  bar.shown = "";
  const card = make("div", "problem", text);
  card.setAttribute("role", "alert");
  bar.replaceChildren(card);
}

// `address` is a text, or a function of what was kept last.
async function leave(address) {
  const project = await flush().catch(() => state?.project); // what cannot be kept need not keep anybody here
  const target = new URL(typeof address === "function" ? address() : address, location.href);
  if (project && !target.searchParams.has("new")) target.searchParams.set("project", project);
  location.assign(target);
}

const CLOSER = '#rooms [href$="/dataset"], .desk-closer'; // lead to what is to be trained when they are pressed

function hearLinks(event) {
  const link = event.target.closest("#rooms a, #nav a, .desk-leads");
  if (!link || event.ctrlKey || event.metaKey || event.shiftKey || event.button) return;
  event.preventDefault();
  if (new URL(link.href).searchParams.has("project")) flush().finally(() => location.assign(link.href));
  else if (!link.matches(CLOSER)) leave(link.href);
  else leave(() => (state?.look_closer || "/dataset") + link.hash);
}

// In the room of the images these come first: a plan of thousands keeps the server busy.
async function pictured() {
  while (document.getElementById("dataset") && !window.captions?.shown) await new Promise((done) => setTimeout(done, 100));
}

async function open() {
  const address = new URLSearchParams(location.search);
  if (address.has("run") && location.pathname === "/") return location.replace(`/live?${new URLSearchParams({ run: address.get("run") })}`);
  await pictured();
  const named = (name) => address.get(name) ?? "";
  const question = { project: named("project"), images: named("images"), run: named("run"), new: address.has("new") };
  question.live = location.pathname === "/live";
  const answer = await peek("desk_open", question);
  if (answer.error) return drawProblem(answer.error);
  ({ words, presets } = answer);
  for (const row of answer.rows) rows.set(row.place, row);
  // Fields are empty till now, numbers 0: where something else stands, a person was quicker
  for (const row of rows.values()) row.dirty = !["", "0", undefined].includes(fieldOf(row)?.value);
  makeSearch();
  drawList(answer.sections);
  makePreset();
  makeGoals();
  makeEpochs();
  makeText();
  makeBrowse();
  makeDrop();
  makeSwitch();
  makeRanges();
  makeKeeping();
  held = answer.state.strength; // also for who changes the rank before this answer
  take(answer.state);
  const modelsThere = makeModels();
  makeRecents();
  follow();
  keep(false);
  const wanted = [...rows.values()].find((row) => row.id === address.get("focus"));
  if (wanted) modelsThere.then(() => fieldOf(wanted)?.focus());
}

function follow() {
  document.addEventListener("change", (event) => rowOf(event.target) && keep(true));
  document.addEventListener("visibilitychange", look);
  addEventListener("focus", look);
  addEventListener("pagehide", () => keep(true));
  TABS.onmessage = hearTabs;
  watch("value", () => props.value !== state.project && reload());
}

document.addEventListener("keydown", hearArrow, true);
document.addEventListener("click", hearLinks, true); // before the server has answered too: what was typed by then is kept
document.addEventListener("input", (event) => {
  if (state && event.detail !== "desk") touched(event);
});
window.atelier = { flush, reload, refresh };
ready = open();
