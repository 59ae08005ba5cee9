// The search over all settings, those with a control of their own too, by anyone's word for them.

let asked = 0; // the number of the last question: an older one's answer is not shown

function shownValue(row) {
  const value = row.field ? read(row) : fieldOf(row)?.value;
  if (value === true) return words.on;
  if (value === false) return words.off;
  return same(value, "") ? "" : fill(words.now, { value: row.unit ? `${value} ${row.unit}` : value });
}

function go(row) {
  if (row.node) row.node.hidden = false;
  const field = fieldOf(row);
  field?.scrollIntoView({ block: "center" });
  field?.focus({ preventScroll: true });
}

function hit(row) {
  const made = button("hit", "", () => go(row));
  const about = [row.kohya && `kohya: ${row.kohya}`, shownValue(row)].filter(Boolean).join(" · ");
  made.append(make("span", "hit-label", row.label), make("span", "hit-about", about));
  return made;
}

function drawFound({ places, instead, nearest, error }, wanted) {
  const found = places?.map((place) => hit(rows.get(place))) ?? [];
  const said = (instead ?? (error ? [error] : [])).map((text) => make("p", "instead", text));
  if (!found.length && !said.length) {
    said.push(make("p", "instead", fill(words.nothing, { words: wanted })));
    for (const near of nearest)
      found.push(button("near", near, () => {
        part("search").querySelector("input").value = near;
        find();
      }));
  }
  const hits = make("div", "hits");
  hits.append(...found);
  part("found").replaceChildren(...said, hits);
}

async function find() {
  const wanted = part("search").querySelector("input").value;
  asked += 1;
  const question = asked;
  if (!wanted.trim()) return part("found").replaceChildren();
  const answer = await server.settings_search({ wanted });
  if (question === asked) drawFound(answer ?? { error: words.offline }, wanted);
}
