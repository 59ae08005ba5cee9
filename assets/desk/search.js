// The search over all settings, those that everybody sees too, by anyone's word for them.

const TYPED = 150; // ms after the last key until it is searched
let asked = 0; // the number of the last question: an older one's answer is not shown

function makeSearch() {
  const place = part("search");
  if (!place) return;
  const label = Object.assign(make("label", "label", words.search), { htmlFor: "search" });
  const field = Object.assign(make("input", "input"), { id: "search", type: "search", autocomplete: "off" });
  const found = make("div", "found");
  found.setAttribute("role", "status");
  place.replaceChildren(label, field, found);
  let waiting = 0;
  field.oninput = () => {
    clearTimeout(waiting);
    waiting = setTimeout(find, TYPED);
  };
  field.onkeydown = (event) => {
    if (event.key === "Enter") find().then(() => found.querySelector("button")?.click());
  };
}

function go(row) {
  if (row.node) row.node.hidden = false;
  const field = fieldOf(row);
  if (!field) return leave(`/?focus=${row.id}`);
  field.scrollIntoView({ block: "center" });
  field.focus({ preventScroll: true });
}

function about(row) {
  const now = fill(words.now, { value: shownValue(row, state.values[row.place]) });
  return [row.kohya && `kohya: ${row.kohya}`, now].filter(Boolean).join(" · ");
}

function hit(row) {
  const made = button("hit", "", () => go(row));
  made.row = row;
  made.append(make("span", "hit-label", row.label), make("span", "hit-about", about(row)));
  return made;
}

// A value was changed while the hits are in view.
function drawHits() {
  for (const made of document.querySelectorAll(".desk-hit")) made.lastChild.textContent = about(made.row);
}

function drawFound({ places, instead, nearest, error }, wanted) {
  const found = places?.map((place) => hit(rows.get(place))) ?? [];
  const said = (instead ?? [error]).map((text) => make("p", "instead", text));
  if (!found.length && !said.length) {
    said.push(make("p", "instead", fill(words.nothing, { words: wanted })));
    for (const near of nearest)
      found.push(
        button("near", near, () => {
          document.getElementById("search").value = near;
          find();
        }),
      );
  }
  part("found").replaceChildren(...said, ...found);
}

async function find() {
  const wanted = document.getElementById("search").value;
  asked += 1;
  const question = asked;
  if (!wanted.trim()) return part("found").replaceChildren();
  const answer = await peek("settings_search", { wanted });
  if (question === asked) drawFound(answer, wanted);
}
