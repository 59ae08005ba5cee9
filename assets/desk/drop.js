// The area where images are dropped. A folder's files are looked up here, for the browser gives Gradio only its name.

const PICTURE = "M2 3.5h12v9H2zm.5 8 3.500-4 2.800 3 2-2 2.700 2.800";

function makeDrop() {
  const place = part("drop");
  const area = document.getElementById("drop");
  if (!place || !area) return;
  const picture = document.createElementNS(SVG, "svg");
  picture.setAttribute("viewBox", "0 0 16 16");
  picture.append(document.createElementNS(SVG, "path"));
  picture.firstChild.setAttribute("d", PICTURE);
  const text = make("span", "drop-text");
  text.append(Object.assign(document.createElement("b"), { textContent: words.drop }), words.drop_about);
  place.replaceChildren(picture, text);
  area.addEventListener("drop", hearDrop, true);
}

function hearDrop(event) {
  const entries = [...(event.dataTransfer?.items ?? [])].map((item) => item.webkitGetAsEntry?.()).filter(Boolean);
  if (!entries.some((entry) => entry.isDirectory)) return; // files alone are Gradio's
  event.preventDefault();
  event.stopImmediatePropagation();
  const field = event.currentTarget.querySelector('input[type="file"]');
  Promise.all(entries.map(filesIn)).then((found) => {
    const chosen = new DataTransfer();
    for (const file of found.flat()) chosen.items.add(file);
    if (!field || !chosen.files.length) return;
    field.files = chosen.files;
    field.dispatchEvent(new Event("change", { bubbles: true }));
  });
}

async function filesIn(entry) {
  if (!entry.isDirectory) return [await new Promise((done, fail) => entry.file(done, fail))];
  const reader = entry.createReader();
  const all = [];
  for (;;) {
    const some = await new Promise((done, fail) => reader.readEntries(done, fail)); // 100 at most, until none is left
    if (!some.length) break;
    all.push(...some.filter((one) => !one.name.startsWith(".")));
  }
  return (await Promise.all(all.map(filesIn))).flat();
}
