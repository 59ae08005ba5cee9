// Beside the settings: the learning rate over the run, epochs × repeats, and what was entered as TOML.

const CURVE = { width: 300, height: 90, points: 120 }; // px
const SVG = "http://www.w3.org/2000/svg";

// The share of the full learning rate at a share of the run, as trainer/engine/optim.py has it.
function rateAt(share, scheduler, warmup) {
  if (share < warmup) return share / warmup;
  const rest = (share - warmup) / (1 - warmup);
  return { constant: 1, linear: 1 - rest, cosine: (1 + Math.cos(Math.PI * rest)) / 2 }[scheduler];
}

function drawCurve() {
  const place = part("curve");
  if (!place) return;
  const values = state.values;
  const scheduler = values["optimizer.lr_scheduler"];
  const warmup = Number(values["optimizer.warmup"]) || 0;
  const seen = JSON.stringify([scheduler, warmup, values["optimizer.learning_rate"]]);
  if (place.shown === seen) return;
  place.shown = seen;
  const { width, height, points } = CURVE;
  const drawing = document.createElementNS(SVG, "svg");
  drawing.setAttribute("viewBox", `0 -4 ${width} ${height + 8}`);
  drawing.setAttribute("role", "img");
  drawing.setAttribute("aria-label", `${words.curve}: ${scheduler}`);
  const line = document.createElementNS(SVG, "polyline");
  const shares = Array.from({ length: points + 1 }, (_, point) => point / points);
  const spots = shares.map((share) => `${share * width},${height * (1 - rateAt(share, scheduler, warmup))}`);
  line.setAttribute("points", spots.join(" "));
  drawing.append(line);
  const peak = fill(words.peak, { rate: values["optimizer.learning_rate"], scheduler });
  place.replaceChildren(make("h3", "label", words.curve), drawing, make("p", "help", peak));
}

// ---- epochs and repeats: what kohya_ss calls the views of an image

let repeats = 1;
let divided = false; // by the user, else as the folder's name says

function makeEpochs() {
  const place = part("epochs");
  if (!place) return;
  const field = (name, value) => {
    const made = Object.assign(make("input", "input small"), { type: "number", min: 1, step: 1, id: `views-${name}`, value });
    made.setAttribute("aria-label", words[name]);
    made.oninput = () => {
      const [epochs, each] = ["epochs", "repeats"].map((one) => Number(document.getElementById(`views-${one}`).value));
      if (!(epochs > 0 && each > 0)) return;
      repeats = each;
      divided = true;
      enter(rows.get("dataset.views"), Math.round(epochs * each));
    };
    return made;
  };
  const line = make("p", "epochs-line help");
  line.append("= ", field("epochs", ""), ` ${words.epochs} × `, field("repeats", 1), ` ${words.repeats}`);
  place.replaceChildren(line);
}

function drawEpochs() {
  const field = document.getElementById("views-epochs");
  if (!field || document.activeElement?.id.startsWith("views-")) return;
  if (!divided && state.plan.repeats) document.getElementById("views-repeats").value = repeats = state.plan.repeats;
  field.value = Number((state.values["dataset.views"] / repeats).toPrecision(4)) || "";
}

// ---- as TOML

function makeText() {
  const place = part("text");
  if (!place) return;
  const label = Object.assign(make("label", "label", words.text), { htmlFor: "as-toml" });
  const field = Object.assign(make("textarea", "input toml"), { id: "as-toml", rows: 14, spellcheck: false });
  const wrong = make("p", "wrong");
  wrong.setAttribute("role", "status");
  let waiting = 0;
  const apply = async () => {
    clearTimeout(waiting);
    const [value, before] = [field.value, field.before ?? ""];
    if (value === before) return;
    await flush().catch(() => {});
    const answer = await peek("desk_choose", { project: state.project, what: "text", value, before });
    wrong.textContent = answer.error ? `⚠ ${answer.error}` : "";
    if (answer.error) return;
    field.before = value;
    take(answer);
    TABS.postMessage({ project: state.project });
  };
  field.oninput = () => {
    clearTimeout(waiting);
    waiting = setTimeout(apply, 300);
  };
  field.onchange = apply;
  const file = Object.assign(make("a", "link export", words.download), { download: "" });
  place.replaceChildren(label, field, wrong, make("p", "help", words.text_help), file);
}

function drawText() {
  const field = document.getElementById("as-toml");
  if (field && field !== document.activeElement) field.value = field.before = state.text;
  const file = part("export");
  if (!file) return;
  file.hidden = !state.project;
  file.href = `/atelier/project/${encodeURIComponent(state.project)}.toml`;
}

function drawAside() {
  drawCurve();
  drawEpochs();
  drawText();
}
