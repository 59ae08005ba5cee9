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
    button("jump", title, () => document.getElementById(`section-${section}`).scrollIntoView({ block: "start" })),
  );
  part("nav").replaceChildren(...links);
}
