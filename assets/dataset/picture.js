// One picture: the focus point with the crop that follows from it, and what the model is fed with. The geometry is the
// server's alone, so that what is drawn here is what is trained.

const KEYS = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] };
const dialog = part("picture");
// The picture that is shown: what the server said of it, `number` of its captions, the focus point `at`, whether that
// is `moving`: not kept yet; `framing` while the crop follows it, `busy` masks that are not kept yet, the `mask` drawn
let view = null;
let seen = 0; // counts questions, so that an answer that comes late is dropped

const address = new URLSearchParams(location.search);
const asTrained = () => ({
  preset: part("preset").value,
  trigger_word: part("trigger").value.trim(),
  resolution: Number(part("resolution").value) || 0,
});
const place100 = (share) => `${(share * 100).toFixed(3)}%`;

function tell(text) {
  part("picture-status").textContent = text;
}

async function openPicture(name) {
  view = { name, number: 0, data: null, at: null, moving: false, framing: false, busy: 0, mask: null };
  if (!dialog.open) dialog.showModal();
  part("picture-name").textContent = name;
  tell("");
  await look();
}

async function look() {
  const number = ++seen;
  const found = await peek("look_at", { ...asTrained(), name: view.name, view: view.number });
  if (number !== seen || !dialog.open) return;
  if (found.error) return tell(found.error);
  view.data = found;
  if (!view.moving) view.at = found.focus;
  drawPicture();
}

function drawPicture() {
  const { data: found } = view;
  const whole = part("whole");
  if (whole.getAttribute("src") !== found.image) whole.src = found.image;
  part("stage").style.setProperty("--ratio", found.size[0] / found.size[1]);
  part("trained").src = found.trained;
  part("trained").alt = fill(words.trained_alt, found);
  part("trained-facts").textContent = found.facts;
  part("trained-words").replaceChildren(found.words || words.no_words);
  if (found.cut) part("trained-words").append(" ", Object.assign(make("del", "del", found.cut), { title: words.cut }));
  part("trained-tokens").textContent = found.tokens;
  write("another", found.views > 1 ? fill(words.another, { number: (view.number % found.views) + 1, count: found.views }) : "");
  const own = part("own-caption");
  if (own.card !== found.name) Object.assign(own, { card: found.name, value: "", caption: "", sent: null });
  hear(own, found.caption);
  part("train-it").checked = !found.left_out;
  part("earlier").disabled = names.indexOf(view.name) <= 0;
  part("later").disabled = names.indexOf(view.name) >= names.length - 1;
  if (!view.moving) drawFrame(found.frame);
  drawFocus();
  element.dispatchEvent(new CustomEvent("looked"));
}

function drawFrame(frame) {
  const { style } = part("frame");
  for (const side of ["left", "top", "width", "height"]) style[side] = place100(frame[side]);
}

function drawFocus() {
  const [x, y] = view.at ?? [0.5, 0.5];
  Object.assign(part("focus").style, { left: place100(x), top: place100(y) });
  part("focus").setAttribute("aria-label", fill(words.focus_at, { x: Math.round(x * 100), y: Math.round(y * 100) }));
  part("centre").disabled = !view.data?.focus;
}

// Move the focus point; the crop follows while it is moved, one question at a time.
async function moveFocus(at) {
  const of = view;
  of.at = at.map((share) => Math.min(1, Math.max(0, Math.round(share * 1000) / 1000)));
  of.moving = true;
  drawFocus();
  if (of.framing) return;
  of.framing = true;
  let asked;
  do {
    asked = of.at;
    const found = await peek("frame", { ...asTrained(), name: of.name, focus: asked });
    if (found.frame && view === of && of.at) drawFrame(found.frame);
  } while (view === of && of.at && of.at !== asked);
  of.framing = false;
}

let keeping = null; // several presses of a key are one change
async function keepFocus() {
  clearTimeout(keeping);
  keeping = null;
  const of = view, { at } = of;
  of.moving = true;
  await changePicture("set_focus", { ...asTrained(), focus: at });
  if (of.at === at) of.moving = false; // else it was moved on
}

const changePicture = (what, more) => ask(what, { name: view.name, ...more });

function pointed(event) {
  const box = part("canvas").getBoundingClientRect();
  return [(event.clientX - box.left) / box.width, (event.clientY - box.top) / box.height];
}

part("canvas").addEventListener("pointerdown", (event) => {
  if (mode !== "focus" || event.button !== 0 || !view?.data) return;
  event.preventDefault();
  const canvas = part("canvas");
  canvas.setPointerCapture(event.pointerId);
  moveFocus(pointed(event));
  canvas.onpointermove = (moved) => moveFocus(pointed(moved));
  canvas.onpointerup = canvas.onpointercancel = () => {
    canvas.onpointermove = canvas.onpointerup = canvas.onpointercancel = null;
    part("focus").focus();
    keepFocus();
  };
});

part("focus").onkeydown = (event) => {
  const way = KEYS[event.key];
  if (!way || event.ctrlKey || event.altKey || event.metaKey) return;
  event.preventDefault();
  const step = event.shiftKey ? 0.1 : 0.02;
  const [x, y] = view.at ?? [0.5, 0.5];
  moveFocus([x + way[0] * step, y + way[1] * step]);
  clearTimeout(keeping);
  keeping = setTimeout(keepFocus, 500);
};

function turnTo(step) {
  const next = names[names.indexOf(view.name) + step];
  if (!next) return;
  leave();
  openPicture(next);
}

// Keep what was not saved yet; what the pointer draws ends here.
function leave() {
  part("canvas").onpointerup?.();
  saveOwn();
  if (keeping !== null) keepFocus();
}

function saveOwn() {
  const own = part("own-caption");
  if (view?.data && own.card === view.name) save(own);
}

let mode = "focus"; // or "mask"
function setMode(chosen) {
  mode = chosen;
  part("work").dataset.mode = mode;
  for (const one of ["focus", "mask"]) {
    part(`mode-${one}`).setAttribute("aria-pressed", String(one === mode));
    part(`${one}-tools`).hidden = one !== mode;
  }
  part("focus").hidden = mode !== "focus";
}

function keepAddress() {
  const { preset, trigger_word: trigger, resolution } = asTrained();
  for (const [key, value] of Object.entries({ preset, trigger, resolution: resolution || "" }))
    value ? address.set(key, value) : address.delete(key);
  history.replaceState(history.state, "", `?${address}`);
}

element.addEventListener("open", ({ detail }) => openPicture(detail));
element.addEventListener("changed", ({ detail }) => dialog.open && detail.includes(view.name) && look());
element.addEventListener("named", () => {
  const plain = { "mode-focus": "mode_focus", "mode-mask": "mode_mask", earlier: "earlier", later: "later", close: "close",
    "focus-hint": "focus_hint", centre: "centre", "trained-title": "trained_title" };
  for (const [name, key] of Object.entries(plain)) part(name).textContent = words[key];
  for (const name of ["preset", "resolution", "trigger", "own", "train-it"])
    part(`label-${name}`).textContent = words[`label.${name}`];
  part("modes").setAttribute("aria-label", words.modes);
  part("preset").replaceChildren(...data.presets.map(([label, preset]) => new Option(label, preset)));
  const asked = address.get("preset");
  part("preset").value = data.presets.some(([, preset]) => preset === asked) ? asked : data.preset;
  part("trigger").value = address.get("trigger") ?? "";
  part("resolution").value = address.get("resolution") ?? "";
  part("resolution").placeholder = words.as_preset;
  setMode("focus");
});
part("mode-focus").onclick = () => setMode("focus");
part("mode-mask").onclick = () => setMode("mask");
part("centre").onclick = () => { view.at = null; keepFocus(); };
part("another").onclick = () => { view.number += 1; look(); };
part("earlier").onclick = () => turnTo(-1);
part("later").onclick = () => turnTo(1);
part("close").onclick = () => dialog.close();
part("as").onsubmit = (event) => event.preventDefault();
part("as").onchange = () => { keepAddress(); look(); };
part("own-caption").onblur = saveOwn;
part("own-caption").onkeydown = (event) => {
  if (event.key !== "Enter" || event.isComposing) return;
  event.preventDefault();
  saveOwn();
};
part("train-it").onchange = ({ target }) => changePicture("leave_out", { names: [view.name], left_out: !target.checked });
dialog.onkeydown = (event) => {
  const step = { PageUp: -1, PageDown: 1 }[event.key];
  if (!step) return;
  event.preventDefault();
  turnTo(step);
};
dialog.onclose = () => {
  leave();
  const at = names.indexOf(view.name);
  view = null;
  go(at); // back to where it was opened
};
