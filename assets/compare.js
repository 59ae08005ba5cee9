// Lays two previews over each other. gr.HTML runs this text once per element, as the body of a function that is
// given `element`.

const part = (name) => element.querySelector(`.compare-${name}`);
let data = { rows: [], words: {} };

// Fill a list, keeping what is chosen; without a choice of the reader's, `usual` is shown.
function fill(select, entries, usual) {
  const chosen = select.dataset.chosen;
  select.replaceChildren(...entries.map(([value, text]) => new Option(text, value)));
  select.value = entries.some(([value]) => String(value) === chosen) ? chosen : String(usual);
}

function show() {
  const row = data.rows[Number(part("prompt").value)] ?? data.rows[0];
  const steps = row.images.map(([step]) => [step, `${data.words.step} ${step}`]);
  fill(part("left"), steps, steps[0][0]);
  fill(part("right"), steps, steps[steps.length - 1][0]);
  for (const [side, name] of [["left", "before"], ["right", "after"]]) {
    const step = Number(part(side).value);
    const [, address] = row.images.find(([one]) => one === step);
    const image = part(name);
    if (image.getAttribute("src") !== address) image.src = address;
    image.alt = `${row.prompt}, ${data.words.step} ${step}`;
  }
}

function update(detail) {
  data = detail ?? { rows: [] };
  part("prompt").closest("figure").hidden = !data.rows.length;
  if (!data.rows.length) return;
  for (const word of ["prompt", "left", "right"]) part(`word-${word}`).textContent = data.words[word];
  part("slide").setAttribute("aria-label", data.words.slide);
  fill(part("prompt"), data.rows.map((row, index) => [index, row.prompt]), 0);
  show();
}

element.addEventListener("change", (event) => {
  const select = event.target.closest("select");
  if (!select) return;
  select.dataset.chosen = select.value;
  show();
});
element.addEventListener("input", (event) => {
  if (!event.target.closest(".compare-slide")) return;
  event.target.closest(".compare-stage").style.setProperty("--at", `${event.target.value}%`);
});
document.addEventListener("atelier:compare", ({ detail }) => update(detail));
