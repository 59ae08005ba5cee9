// The bar: what Train will do, or why it cannot; and the desk as a whole.

function drawBar() {
  const { first, second, notes, problem } = state.plan;
  const bar = part("bar");
  const shown = JSON.stringify([state.plan, state.smaller]);
  if (!bar || bar.shown === shown) return;
  bar.shown = shown;
  bar.replaceChildren();
  const add = (name, html) => {
    if (html) bar.append(Object.assign(make("div", name), { innerHTML: html }));
  };
  add("problem", problem);
  add("first", first);
  add("second", second);
  for (const note of notes) add("note", note);
  if (state.smaller) bar.append(button("soft", state.smaller, () => choose("smaller")));
}

function drawProblem(text) {
  const bar = part("bar");
  if (!bar) return;
  bar.shown = "";
  const card = make("div", "problem", text);
  card.setAttribute("role", "alert");
  bar.replaceChildren(card);
}

async function leave(address) {
  const project = await flush().catch(() => state.project); // what cannot be kept need not keep anybody here
  const target = new URL(address, location.href);
  if (project && !target.searchParams.has("new")) target.searchParams.set("project", project);
  location.assign(target);
}

function hearLinks(event) {
  const link = event.target.closest("#rooms a, #nav a, .desk-recent");
  if (!link || event.ctrlKey || event.metaKey || event.shiftKey || event.button) return;
  event.preventDefault();
  if (link.classList.contains("desk-recent")) flush().finally(() => location.assign(link.href));
  else leave(new URL(link.href).pathname === "/dataset" && state?.look_closer ? state.look_closer : link.href);
}

async function open() {
  const address = new URLSearchParams(location.search);
  if (address.has("run")) return location.replace(`/live?${new URLSearchParams({ run: address.get("run") })}`);
  const question = { project: address.get("project") ?? "", images: address.get("images") ?? "", new: address.has("new") };
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
  document.addEventListener("click", hearLinks, true);
  document.addEventListener("visibilitychange", look);
  addEventListener("focus", look);
  addEventListener("pagehide", () => keep(true));
  TABS.onmessage = hearTabs;
  watch("value", () => props.value !== state.project && reload());
}

document.addEventListener("keydown", hearArrow, true);
document.addEventListener("input", (event) => {
  if (state && event.detail !== "desk") touched(event);
});
window.atelier = { flush, reload };
ready = open();
