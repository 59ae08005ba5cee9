// The list as a whole: made once, then kept equal with what the page says.

function drawList(sections) {
  const made = Object.entries(sections).map(([section, title]) => {
    const block = make("section", "section");
    const listed = [...rows.values()].filter((row) => row.section === section && row.listed);
    block.append(make("h3", "heading", title), ...listed.map(makeRow));
    return block;
  });
  part("sections").replaceChildren(...made.filter((block) => block.querySelector(".settings-row")));
}

function hear() {
  values = JSON.parse(props.value);
  for (const row of rows.values()) if (row.field) write(row);
  drawApplying();
}

function follow() {
  const ofRow = (event) => [...rows.values()].find((row) => row.field === event.target);
  element.addEventListener("input", (event) => {
    clearTimeout(typing);
    typing = setTimeout(event.target.id === "search" ? find : takeTyped, TYPED);
  });
  element.addEventListener("change", (event) => ofRow(event) && take(ofRow(event)));
  document.addEventListener("pointerdown", takeTyped, true);
  part("search").addEventListener("keydown", (event) => {
    if (event.key === "Enter") find().then(() => part("found").querySelector("button")?.click());
  });
  document.addEventListener("settings-marks", (event) => {
    ({ usual = {}, wrong = {} } = event.detail);
    drawMarks();
  });
  watch("value", hear);
}

server.settings_rows({}).then((told) => {
  words = told.words;
  for (const row of told.rows) rows.set(row.place, row);
  part("title").textContent = words.title;
  part("search-label").textContent = words.search;
  drawList(told.sections);
  follow();
  drawMarks();
});
