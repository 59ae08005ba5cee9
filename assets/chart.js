// Draws the loss of a run. gr.HTML runs this text once per element, as the body of a function that is given
// `element`, `props` and `watch`. Later only attributes and texts change: nothing on the page is built anew.

const HEIGHT = 240, LEFT = 48, RIGHT = 22, TOP = 10, BOTTOM = 24; // px
const TINY = 1e-30; // smallest loss on the log scale

// at: the step that is read out, or null; scale: what the last drawing used
const state = { data: null, log: false, at: null, width: 0, scale: null, grid: "" };

const part = (name) => element.querySelector(`.chart-${name}`);

function write(name, text) {
  const node = part(name);
  if (node.textContent !== text) node.textContent = text;
}

// Up to four digits, without trailing zeros.
const short = (number) => (number === null ? "–" : String(Number(number.toPrecision(4))));

// Multiples of 1, 2 or 5 times a power of ten between low and high, about `count` of them.
function ticks(low, high, count) {
  const rough = (high - low) / Math.max(count, 1);
  const power = 10 ** Math.floor(Math.log10(rough));
  const step = [1, 2, 5, 10].map((factor) => factor * power).find((size) => size >= rough * 0.999);
  const found = [];
  for (let i = Math.ceil(low / step - 1e-9); i * step <= high + step * 1e-9; i++) found.push(i * step);
  return found;
}

// Powers of ten, with their 2 and 5 fold while there is room; within less than a decade as on the linear scale.
function logTicks(low, high) {
  const decades = Math.log10(high / low);
  const factors = decades > 3 ? [1] : [1, 2, 5];
  const every = Math.ceil(decades / 6);
  const found = [];
  for (let power = Math.floor(Math.log10(low)); power <= Math.log10(high); power++)
    if (power % every === 0 || decades <= 3)
      for (const factor of factors) found.push(Number(`${factor}e${power}`));
  const inside = found.filter((value) => value >= low && value <= high);
  return inside.length > 1 ? inside : ticks(low, high, 4);
}

// Lowest and highest y with a little air.
function domain(points, log) {
  let low = Infinity, high = -Infinity;
  for (const point of points)
    for (const value of [point[1], point[2]])
      if (value !== null && (!log || value > TINY)) {
        low = Math.min(low, value);
        high = Math.max(high, value);
      }
  if (low > high) return log ? [0.01, 1] : [0, 1];
  if (log) {
    const air = Math.max((high / low) ** 0.05, 1.05);
    return [low / air, high * air];
  }
  const air = Math.max((high - low) * 0.05, Math.abs(high) * 0.01, TINY);
  return [low >= 0 ? Math.max(0, low - air) : low - air, high + air];
}

function scaleOf({ points, total }) {
  const level = state.log ? Math.log10 : (value) => value;
  const [low, high] = domain(points, state.log);
  const end = Math.max(total, points.length ? points[points.length - 1][0] : 0, 1);
  const right = state.width - RIGHT, bottom = HEIGHT - BOTTOM;
  const x = (step) => LEFT + (step / end) * (right - LEFT);
  const y = (loss) => bottom - ((level(loss) - level(low)) / (level(high) - level(low))) * (bottom - TOP);
  return { low, high, end, right, bottom, x, y };
}

// One column as a path; what cannot be drawn is a gap, and a lone point a dot.
function curve(points, column, { x, y }) {
  let path = "", apart = true;
  for (const point of points) {
    const height = point[column] === null ? NaN : y(point[column]);
    if (Number.isFinite(height)) {
      const place = `${x(point[0]).toFixed(1)} ${height.toFixed(1)}`;
      path += apart ? `M${place}h0` : `L${place}`;
    }
    apart = !Number.isFinite(height);
  }
  return path;
}

function gridOf(scale) {
  const losses = state.log ? logTicks(scale.low, scale.high) : ticks(scale.low, scale.high, 5);
  const rows = losses.map((loss) => {
    const y = scale.y(loss).toFixed(1);
    return `<path d="M${LEFT} ${y}H${scale.right}"/>`
      + `<text x="${LEFT - 6}" y="${y}" dy="4" text-anchor="end">${short(loss)}</text>`;
  });
  const steps = ticks(0, scale.end, state.width / 90).filter((step) => Number.isInteger(step));
  const columns = steps.map((step) =>
    `<text x="${scale.x(step).toFixed(1)}" y="${HEIGHT - 6}" text-anchor="middle">${step}</text>`);
  return rows.concat(columns).join("");
}

function drawWords() {
  const { summary, words } = state.data;
  write("summary", summary);
  write("log", words.log);
  part("log").setAttribute("aria-pressed", String(state.log));
  part("plot").setAttribute("aria-label", `${words.title}. ${summary}`);
}

function drawCurves() {
  const { points, markers } = state.data;
  const scale = (state.scale = scaleOf(state.data));
  part("plot").setAttribute("viewBox", `0 0 ${state.width} ${HEIGHT}`);
  const grid = gridOf(scale);
  if (grid !== state.grid) part("grid").innerHTML = state.grid = grid; // numbers only, no text of others
  const marks = markers.map((step) => `M${scale.x(step).toFixed(1)} ${TOP}V${scale.bottom}`);
  part("marks").setAttribute("d", marks.join(""));
  part("raw").setAttribute("d", curve(points, 1, scale));
  part("smooth").setAttribute("d", curve(points, 2, scale));
}

function drawReadout() {
  const { points, words } = state.data;
  const point = state.at === null ? undefined : points[nearest(points, state.at)];
  if (!point) {
    write("readout", words.legend);
    part("cursor").setAttribute("d", "");
    part("dot").setAttribute("d", "");
    return;
  }
  const [step, loss, smoothed, rate] = point;
  const shown = rate === null ? "–" : rate.toExponential(2);
  write("readout", `${words.step} ${step} · ${words.loss} ${short(loss)} · ${words.smoothed} ${short(smoothed)}`
    + ` · ${words.learning_rate} ${shown}`);
  part("cursor").setAttribute("d", `M${state.scale.x(step).toFixed(1)} ${TOP}V${state.scale.bottom}`);
  part("dot").setAttribute("d", curve([point], 2, state.scale));
}

function draw() {
  drawWords();
  if (state.width <= LEFT + RIGHT) return; // hidden: the observer below calls again
  drawCurves();
  drawReadout();
}

// Index of the point whose step is closest; 0 if there is none.
function nearest(points, step) {
  let low = 0, high = points.length - 1;
  while (low < high) {
    const middle = (low + high) >> 1;
    if (points[middle][0] < step) low = middle + 1;
    else high = middle;
  }
  return low > 0 && step - points[low - 1][0] < points[low][0] - step ? low - 1 : low;
}

function readOut(step) {
  state.at = step;
  if (state.scale) drawReadout();
}

function readPointer(event) {
  if (!state.scale || !event.target.closest(".chart-plot")) return;
  const { end, right } = state.scale;
  readOut(((event.clientX - part("plot").getBoundingClientRect().left - LEFT) / (right - LEFT)) * end);
}

function readKey(event) {
  const { points } = state.data;
  if (!points.length || !event.target.closest(".chart-plot")) return;
  const last = points.length - 1, jump = Math.ceil(points.length / 100);
  const now = state.at === null ? last : nearest(points, state.at);
  const index = { ArrowLeft: now - jump, ArrowRight: now + jump, Home: 0, End: last }[event.key];
  if (event.key === "Escape") readOut(null);
  if (index === undefined) return;
  event.preventDefault(); // the page must not scroll along
  readOut(points[Math.min(Math.max(index, 0), last)][0]);
}

function show(data) {
  state.data = data;
  element.querySelector(".chart").hidden = !data.points.length;
  draw();
}

element.addEventListener("click", (event) => {
  if (!event.target.closest(".chart-log")) return;
  state.log = !state.log;
  draw();
});
for (const name of ["pointerdown", "pointermove"]) element.addEventListener(name, readPointer);
element.addEventListener("pointerleave", (event) => {
  if (event.pointerType !== "touch") readOut(null); // a lifted finger leaves its value to be read
});
element.addEventListener("focusout", () => readOut(null));
element.addEventListener("keydown", readKey);
new ResizeObserver(([entry]) => {
  state.width = Math.round(entry.contentRect.width);
  draw();
}).observe(element.querySelector(".chart"));
const empty = JSON.parse(props.value);
document.addEventListener("atelier:chart", ({ detail }) => show(detail ?? empty));
show(empty);
