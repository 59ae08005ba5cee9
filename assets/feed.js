// Asks what is new about the run whose name is this element's value, and puts it in its places: once a second, or as
// seldom as the server wishes. gr.HTML runs this text once per element, as the body of a function that is given
// `element`, `props`, `trigger` and `watch`.

const SOONEST = 1000; // ms
const page = crypto.getRandomValues(new Uint32Array(2)).join("-"); // by which the server counts open pages
const shown = {}; // what stands in each place
const BEHIND = 10_000; // ms between two questions of a tab in the background
const bell = element.querySelector(".notify");
const mute = !window.isSecureContext || !("Notification" in window); // a browser notifies on localhost and https alone
let asked = -BEHIND;
let running = false;
let key = "", frame = "", asking = false, offline = "", timer = 0, pause = SOONEST;

function put(part, html) {
  const place = document.querySelector(`[data-part="${part}"]`);
  if (!place || shown[part] === html) return;
  place.innerHTML = shown[part] = html; // made by our server, which escapes every text of others
}

function tell(name, data) {
  const text = JSON.stringify(data);
  if (shown[name] === text) return;
  shown[name] = text;
  document.dispatchEvent(new CustomEvent(`atelier:${name}`, { detail: data }));
}

// The end of a training that was seen running, where the browser may say it.
function notify(answer) {
  if (mute || answer.running === null) return;
  bell.textContent = answer.notify;
  bell.hidden = !answer.running || Notification.permission !== "default";
  if (running && !answer.running && Notification.permission === "granted") {
    try {
      new Notification(answer.title, { tag: props.value });
    } catch {
      // a phone's browser wants a service worker
    }
  }
  running = answer.running;
}

bell.onclick = async () => {
  await Notification.requestPermission();
  bell.hidden = true;
};

function take(answer) {
  key = answer.key;
  offline = answer.offline;
  for (const [part, html] of Object.entries(answer.html)) put(part, html);
  const log = document.querySelector('[data-part="log"]');
  if (log && log.textContent !== answer.log) log.textContent = answer.log;
  document.title = answer.title || "Atelier";
  notify(answer);
  tell("chart", answer.chart);
  tell("compare", answer.compare);
  if (answer.frame === frame) return;
  frame = answer.frame;
  trigger("submit"); // buttons, files and queue are the server's to change
}

async function ask() {
  if (asking) return;
  if (document.hidden && performance.now() - asked < BEHIND) return; // its title alone is seen
  asked = performance.now();
  asking = true;
  clearTimeout(timer);
  const run = props.value ?? "";
  try {
    const answer = await fetch(`/atelier/live?${new URLSearchParams({ run, key, page })}`);
    pause = Number(answer.headers.get("x-atelier-pause")) || SOONEST;
    if (run !== (props.value ?? "")) return; // another run is shown by now
    if (answer.status === 200) take(await answer.json());
    element.classList.remove("offline");
    element.removeAttribute("title");
  } catch {
    element.classList.add("offline");
    if (offline) element.setAttribute("title", offline);
    const status = element.querySelector('[role="status"]');
    if (status && offline && status.textContent !== offline) status.textContent = offline;
    shown.headline = key = ""; // once the server is there again, all is new
  } finally {
    asking = false;
    timer = setTimeout(ask, document.hidden ? BEHIND : pause);
  }
}

watch("value", () => {
  key = "";
  running = false;
  ask();
});
document.addEventListener("visibilitychange", ask);
ask();
