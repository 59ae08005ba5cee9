// Choices that set many settings: preset, goal, base model; the projects; the images of the folder.

const GOALS = ["style", "character", "concept"];
let presets = [];

function makePreset() {
  const place = part("preset");
  if (!place) return;
  const label = Object.assign(make("label", "label", words.preset), { htmlFor: "preset" });
  const field = Object.assign(make("select", "input"), { id: "preset" });
  field.append(new Option(words.no_preset, ""));
  for (const group of presets) {
    const made = Object.assign(document.createElement("optgroup"), { label: group.label });
    made.append(...group.presets.map(([name, title]) => new Option(title, name)));
    field.append(made);
  }
  field.onchange = () => field.value && choose("preset", field.value);
  place.replaceChildren(label, field, make("p", "intent help"));
}

function makeCard(group, value, label, about, chosen, pressed) {
  const card = make("label", "pick");
  const dot = Object.assign(document.createElement("input"), { type: "radio", name: group, value, checked: chosen });
  dot.onchange = pressed;
  const text = make("span", "pick-text");
  text.append(make("span", "pick-label", label), make("span", "pick-about", about));
  card.append(dot, text);
  return card;
}

function makeGoals() {
  const place = part("goals");
  if (!place) return;
  place.setAttribute("role", "radiogroup");
  place.replaceChildren(
    ...GOALS.map((goal) => makeCard("goal", goal, words[goal], words[`${goal}_about`], false, () => choose("goal", goal))),
  );
}

async function makeModels() {
  const place = part("models");
  if (!place) return;
  const { models = [] } = await peek("desk_models");
  place.setAttribute("role", "radiogroup");
  const cards = models.map((model) => {
    const card = makeCard("model", model.name, model.label, model.about, false, () => choose("model", model.name));
    card.classList.toggle("toy", model.toy);
    return card;
  });
  const row = rows.get("model.base_model");
  const other = make("div", "other setting-row");
  row.field = Object.assign(makeField(row), { placeholder: "/models/my-model.safetensors" });
  // A chosen preset stays, also one that is being chosen: a button offers another
  row.field.onchange = () => flush().then(() => state.preset || choose("model", row.field.value), () => {});
  row.field.onblur = () => askHub(row.field.value);
  const label = Object.assign(make("label", "label", words.other), { htmlFor: row.id });
  row.mark = make("div", "mark");
  other.append(label, row.field, row.mark);
  place.replaceChildren(...cards, other, make("p", "model help"), make("div", "remedy"));
  drawRows();
  drawChoices(null);
}

async function askHub(model) {
  const { line } = await peek("desk_hub", { base_model: model });
  if (line && part("model")) part("model").textContent = line;
}

function drawChoices(before) {
  const chosen = (group, value) => {
    for (const dot of document.querySelectorAll(`input[name="${group}"]`)) dot.checked = dot.value === value;
  };
  chosen("goal", state.goal);
  chosen("model", state.values["model.base_model"]);
  const preset = document.getElementById("preset");
  if (preset && preset.value !== state.preset) preset.value = state.preset;
  if (part("intent")) part("intent").textContent = state.intent;
  if (part("model") && state.model !== before?.model) part("model").textContent = state.model;
  const strength = part("strength");
  if (strength) strength.textContent = state.strength ? fill(words.strength, { strength: Number(state.strength.toPrecision(2)) }) : "";
  const remedy = part("remedy");
  if (remedy) remedy.replaceChildren(...(state.remedy ? [button("soft", state.remedy, () => choose("remedy"))] : []));
}

async function drawImages() {
  const question = { images: state.values["dataset.images"], trigger_word: state.values["dataset.trigger_word"] };
  const place = part("images");
  const asked = JSON.stringify(question);
  if (!place || place.asked === asked) return;
  place.asked = asked;
  const { html, set, error } = await peek("desk_images", question);
  if (place.asked !== asked) return; // another folder by now
  if (error) return place.replaceChildren(make("p", "wrong", error));
  put("images", html);
  const counted = place.querySelector(".counted");
  if (!counted || !state.look_closer || counted.querySelector(".desk-link")) return; // they are there: only the question was another
  counted.append(Object.assign(make("a", "link leads closer", words.see), { href: "/dataset" }));
  const renaming = button("link", words.rename, () => renameSet(renaming, set));
  if (set) counted.append(renaming);
}

// A field for the set's new name, in place of the button until it has one or Escape.
function renameSet(renaming, set) {
  const field = Object.assign(make("input", "input"), { value: set });
  field.setAttribute("aria-label", words.rename_set);
  const rename = () => {
    const name = field.value.trim();
    field.onblur = null; // it goes, and would lose the focus
    field.replaceWith(renaming);
    if (name && name !== set) ask("desk_rename_set", { images: state.values["dataset.images"], name });
  };
  field.onkeydown = ({ key }) => {
    if (key === "Escape") field.value = set;
    if (key !== "Escape" && key !== "Enter") return;
    rename();
    renaming.focus();
  };
  field.onblur = rename;
  renaming.replaceWith(field);
  field.select();
}

const FIRST = 4; // projects that are shown at once

function recentCard(one) {
  const card = Object.assign(make("a", "recent leads"), { href: addressOf("/", one.name) });
  if (one.name === state.project) card.setAttribute("aria-current", "true");
  const pictures = make("span", "recent-pictures");
  for (const address of one.pictures) pictures.append(Object.assign(new Image(), { src: address, alt: "", loading: "lazy" }));
  const text = make("span", "recent-text");
  text.append(make("span", "recent-name", one.name));
  if (one.state) text.append(make("span", one.live ? "tag live" : "tag", one.state));
  text.append(make("span", "recent-about", one.about));
  card.append(pictures, text);
  return card;
}

async function makeRecents() {
  const place = part("recents");
  if (!place) return;
  const { projects = [] } = await peek("desk_recent");
  const fresh = Object.assign(make("a", "plain leads", words.new), { href: "/?new=1" });
  const example = button("plain", words.example, () => choose("example").then(makeRecents));
  example.id = "example";
  const head = make("div", "recents-head");
  head.append(make("h2", "title", projects.length ? words.projects : words.welcome));
  const list = make("div", "recents-list");
  list.append(...projects.slice(0, FIRST).map(recentCard));
  if (projects.length > FIRST) {
    const all = button("link", fill(words.all_projects, { count: projects.length }), () => {
      list.append(...projects.slice(FIRST).map(recentCard));
      list.children[FIRST].focus();
      all.remove();
    });
    head.append(all);
  }
  head.append(example, fresh);
  place.replaceChildren(head, ...(projects.length ? [list] : []));
}
