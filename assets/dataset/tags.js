// The tags of all captions with their counts, and the same change to many captions.

const FEW = 40; // tags at first
const FIELDS = { add: ["put", "first"], remove: ["find"], rename: ["find", "put"], replace: ["find", "put"], trigger: ["put"] };
let allTags = false;

function toggleTag(tag) {
  const on = !filter.tags.includes(tag);
  if (on) part("find").value = tag;
  choose({ tags: on ? [...filter.tags, tag] : filter.tags.filter((other) => other !== tag) });
  previewSoon();
}

function drawCloud() {
  const cloud = data.cloud;
  write("tags-title", fill(words.tags, { count: cloud.length }));
  write("tags-hint", cloud.length ? words.tags_hint : words.tags_none);
  const first = cloud.filter(([tag], i) => allTags || i < FEW || filter.tags.includes(tag));
  const most = Math.max(4, cloud[0]?.[1] ?? 0);
  refill(part("cloud"), first.map(([tag, count]) => {
    const node = button("tag", "", () => toggleTag(tag));
    node.dataset.key = tag;
    node.append(make("span", "tag-name", tag), " ", make("span", "tag-count", String(count)));
    node.style.setProperty("--share", Math.sqrt(count / most).toFixed(2));
    node.setAttribute("aria-pressed", String(filter.tags.includes(tag)));
    return node;
  }));
  write("more-tags", cloud.length <= FEW ? "" : allTags ? words.fewer_tags : fill(words.more_tags, { count: cloud.length - FEW }));
  part("cloud").setAttribute("aria-label", words.tags_hint);
  const known = element.querySelector("#captions-known-tags");
  known.replaceChildren(...cloud.slice(0, 200).map(([tag]) => Object.assign(document.createElement("option"), { value: tag })));
}

const edit = () => ({
  kind: part("kind").value,
  find: part("find").value,
  put: part("put").value,
  first: part("first").checked,
});

function drawFields() {
  const kind = part("kind").value;
  for (const field of ["find", "put", "first"]) {
    part(`for-${field}`).hidden = !FIELDS[kind].includes(field);
    part(`label-${field}`).textContent = words[`bulk.${kind}.${field}`] ?? "";
  }
}

// Where the two texts differ: what goes and what comes, between what stays.
function difference(before, after) {
  let start = 0, end = 0;
  while (start < Math.min(before.length, after.length) && before[start] === after[start]) start++;
  while (end < Math.min(before.length, after.length) - start && before.at(-1 - end) === after.at(-1 - end)) end++;
  const middle = (text) => text.slice(start, text.length - end);
  const nodes = [before.slice(0, start)];
  if (middle(before)) nodes.push(make("del", "del", middle(before)));
  if (middle(after)) nodes.push(make("ins", "ins", middle(after)));
  return [...nodes, before.slice(before.length - end)];
}

let previewing = null, previewed = 0;
function previewSoon() {
  clearTimeout(previewing);
  previewing = setTimeout(preview, 200);
}

async function preview() {
  if (!data?.whole || !part("bulk-panel").open) return;
  const number = ++previewed;
  const found = await peek("bulk_preview", { edit: edit(), names: scope() });
  if (number !== previewed) return; // a newer one is under way
  if (found.error) return say(found.error, "failure");
  write("preview-count", fill(words[picked.size ? "bulk.of_picked" : "bulk.of_shown"], found));
  part("examples").replaceChildren(...found.examples.map(([picture, before, after]) => {
    const line = make("li", "example");
    const text = make("p", "example-text");
    text.append(...difference(before, after));
    line.append(make("p", "example-name", picture), text);
    return line;
  }));
  part("apply").textContent = fill(words["bulk.apply"], { count: found.count });
  part("apply").disabled = !found.count;
}

element.addEventListener("named", () => {
  write("bulk-title", words.bulk);
  part("label-kind").textContent = words["bulk.kind"];
  part("kind").replaceChildren(...Object.keys(FIELDS).map((kind) => new Option(words[`bulk.${kind}`], kind)));
  part("apply").textContent = fill(words["bulk.apply"], { count: 0 });
  part("apply").disabled = true;
  for (const panel of ["tags-panel", "bulk-panel"]) part(panel).open = innerWidth > 900;
  drawFields();
});
element.addEventListener("drawn", () => { drawCloud(); previewSoon(); });
element.addEventListener("scope", previewSoon);
part("more-tags").onclick = () => { allTags = !allTags; drawCloud(); };
part("kind").onchange = () => { drawFields(); preview(); };
part("bulk").oninput = previewSoon;
part("bulk-panel").ontoggle = preview;
part("bulk").onsubmit = (event) => {
  event.preventDefault();
  if (!part("apply").disabled) ask("bulk", { edit: edit(), names: scope() });
};
