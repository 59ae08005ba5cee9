// Automatic captions: which captioner, how far it is, stop. The work is a process of its own; this only looks at it.

const EVERY_LOOK = 700; // ms
let captioning = { working: false };
let watching = null;

const captioner = () => data.captioners.find(({ name: one }) => one === part("captioner").value);

function drawCaptioner() {
  const chosen = captioner();
  write("captioner-sentence", chosen.sentence);
  part("for-model").hidden = part("for-download").hidden = !chosen.model;
  part("for-detail").hidden = !chosen.details;
  part("model").placeholder = chosen.model;
  part("label-download").textContent = fill(words["caption.fetch"], { size: chosen.size });
  write("captioner-install", chosen.install ? fill(words["caption.install"], { command: chosen.install }) : "");
  part("caption-start").disabled = Boolean(chosen.install) || captioning.working;
}

function drawCaptioning() {
  part("caption-start").textContent = words[captioning.state === "interrupted" ? "caption.resume" : "caption.start"];
  part("caption-stop").hidden = part("caption-progress").hidden = !captioning.working;
  Object.assign(part("caption-progress"), captioning.of ? { max: captioning.of, value: captioning.done } : {});
  if (!captioning.of) part("caption-progress").removeAttribute("value");
  write("caption-report", captioning.report);
  drawCaptioner();
}

function watchSoon(wait) {
  watching = setTimeout(async () => watchCaptioning(await peek("captioning")), wait);
}

// Look again while it works; when it ends, the captions are new.
function watchCaptioning(found) {
  clearTimeout(watching);
  if (found.working === undefined) {
    if (found.lost) watchSoon(AGAIN);
    return write("caption-report", found.lost ? words.again : found.error);
  }
  const ended = captioning.working && !found.working;
  captioning = found;
  drawCaptioning();
  if (found.working) watchSoon(EVERY_LOOK);
  if (!ended) return;
  cards.clear();
  ask("show");
}

element.addEventListener("named", async () => {
  write("captioner-title", words["caption.title"]);
  for (const name of ["captioner", "model", "detail", "overwrite"]) part(`label-${name}`).textContent = words[`caption.${name}`];
  part("caption-stop").textContent = words["caption.stop"];
  part("captioner").replaceChildren(...data.captioners.map((one) => new Option(one.label, one.name)));
  part("detail").replaceChildren(...["short", "detailed", "long"].map((one) => new Option(words[`caption.${one}`], one)));
  part("detail").value = "detailed";
  drawCaptioning();
  watchCaptioning(await peek("captioning"));
  if (location.hash !== "#caption") return;
  const panel = part("captioner").closest("details");
  panel.open = true;
  panel.scrollIntoView({ block: "nearest" });
  panel.querySelector("summary").focus({ preventScroll: true });
});
part("captioner").onchange = drawCaptioner;
part("caption-stop").onclick = async () => watchCaptioning(await peek("caption_stop"));
part("caption").onsubmit = async (event) => {
  event.preventDefault();
  write("caption-report", words.waiting);
  watchCaptioning(await peek("caption_start", {
    captioner: part("captioner").value,
    model: captioner().model ? part("model").value : "",
    detail: part("detail").value,
    overwrite: part("overwrite").checked,
    download: part("download").checked,
  }));
};
