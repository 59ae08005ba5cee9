// The room Settings: all settings by section, and the sections as links.

function drawList(sections) {
  const list = part("sections");
  if (!list) return;
  const made = Object.entries(sections).map(([section, title]) => {
    const block = make("section", "section card");
    const heading = Object.assign(make("h2", "heading", title), { id: `section-${section}` });
    const listed = [...rows.values()].filter((row) => row.section === section && !row.basic);
    block.append(...listed.map(makeRow));
    const whole = make("div", "block");
    whole.append(heading, block);
    return whole;
  });
  list.replaceChildren(...made);
  const links = Object.entries(sections).map(([section, title]) =>
    jump(section, title),
  );
  part("nav").replaceChildren(...links, make("div", "back"));
}

function jump(section, title) {
  const link = button("jump", title, () => document.getElementById(`section-${section}`).scrollIntoView({ block: "start" }));
  link.append(Object.assign(make("span", "count"), { id: `changed-${section}` }));
  return link;
}

// How many settings differ from the preset, by section, and the way back.
function drawNav() {
  const back = part("back");
  if (!back) return;
  const changed = Object.keys(state.usual);
  for (const count of document.querySelectorAll(".desk-count")) {
    const here = changed.filter((place) => `changed-${place.split(".")[0]}` === count.id).length;
    count.textContent = here || "";
  }
  const shown = `${state.preset} ${changed.length}`;
  if (back.shown === shown) return;
  back.shown = shown;
  back.replaceChildren();
  if (!changed.length || !state.preset) return;
  const title = document.getElementById("preset")?.selectedOptions[0]?.textContent ?? state.preset;
  back.append(make("span", "", fill(words.changed, { count: changed.length, preset: title })));
  back.append(button("plain", words.back_to_preset, () => choose("preset", state.preset)));
}
