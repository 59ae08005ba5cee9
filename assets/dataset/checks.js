// What the doctor found: each finding with its pictures, why it matters, and one press that mends it.

const EVERY = 400; // ms between two questions while the check runs
let checking = null;
let findings = null; // as long as the pictures are not checked
const reasons = new Set(); // of which finding the reason is unfolded, by its message

function checkSoon(wait = 700) {
  clearTimeout(checking);
  checking = setTimeout(check, wait);
}

async function check(start = false) {
  clearTimeout(checking);
  if (!data?.whole) return;
  const found = await peek("check", { ...asTrained(), start });
  if (found.lost) checkSoon(AGAIN);
  if (found.state === undefined) return tellCheck(found.lost ? words.again : found.error);
  const preset = part("preset").value;
  write("checks-judged", fill(words["check.judged"], { preset, resolution: found.resolution }));
  part("checks-progress").hidden = found.state !== "running";
  Object.assign(part("checks-progress"), { max: found.of || 1, value: found.done });
  part("check-now").hidden = found.state === "running" || found.state === "done";
  if (found.state === "running") {
    tellCheck(fill(words["check.running"], found));
    return checkSoon(EVERY);
  }
  findings = found.findings;
  drawFindings();
  if (found.state === "failed") return tellCheck(found.error);
  if (found.state === "idle") return tellCheck(words["check.idle"]);
  tellCheck(findings.length ? "" : words["check.none"]);
}

function tellCheck(text) {
  write("checks-state", text);
}

function drawFindings() {
  write("checks-title", fill(words["check.title"], { count: findings?.length ?? "…" }));
  refill(part("findings"), (findings ?? []).map(drawFinding));
}

function drawFinding(finding, number) {
  const item = make("li", "finding");
  item.dataset.level = finding.level;
  item.append(make("p", "finding-level", words[`check.${finding.level}`]), make("p", "finding-message", finding.message));
  const more = make("details", "finding-more");
  const reason = more.appendChild(make("summary", "finding-reason", words["check.reason"]));
  reason.dataset.key = `reason ${finding.message}`;
  more.append(make("p", "finding-why", finding.why), make("p", "finding-hint captions-quiet", finding.hint));
  more.open = reasons.has(finding.message);
  more.ontoggle = () => reasons[more.open ? "add" : "delete"](finding.message);
  const row = make("div", "finding-buttons");
  if (finding.names.length) {
    const on = () => filter.among.join("\n") === finding.names.join("\n");
    const show = button("finding-show", fill(words["check.show"], { count: finding.names.length }), () => {
      choose(on() ? { among: [] } : { choice: "all", tags: [], among: finding.names });
    });
    show.dataset.key = `show ${finding.message}`;
    show.setAttribute("aria-pressed", String(on()));
    row.append(show);
  }
  if (finding.fix)
    row.append(button("finding-fix", fill(words["check.fix"], { count: finding.fix }), async () => {
      const answer = await ask("fix", { ...asTrained(), number, message: finding.message });
      if (answer.error) check();
    }));
  item.append(row, more);
  return item;
}

element.addEventListener("named", () => {
  findings = null; // those of another folder
  drawFindings();
  write("check-now", words["check.now"]);
  part("check-now").hidden = true;
  part("checks-panel").open = innerWidth > 900;
});
element.addEventListener("drawn", () => { drawFindings(); checkSoon(); });
part("check-now").onclick = () => check(true);
part("as").addEventListener("change", () => checkSoon());
