// The last of the files that belong to grid.js: what the page shows at first, and when another folder is opened.

// Once the pictures in view are there, or cannot be had.
const pictured = () => Promise.allSettled([...shown.values()].map((item) => item.querySelector("img").decode()));

function start() {
  const value = JSON.parse(props.value);
  data = null;
  if (value) {
    ({ words, names } = value);
    data = value;
    name();
    for (const card of value.cards) cards.set(card.name, card);
    element.dispatchEvent(new CustomEvent("named"));
  }
  draw();
  window.captions.shown = !data;
  if (!data) return;
  say(words.keys, "hint");
  // Reading all captions keeps the server busy: first the pictures that are in view
  const opened = props.value;
  pictured().then(() => {
    window.captions.shown = true;
    if (props.value === opened && !data.whole) choose({});
  });
}

let telling = 0;
element.addEventListener("changed", () => {
  clearTimeout(telling);
  telling = setTimeout(() => window.atelier?.refresh(), 1000); // the plan counts captions and images
});

watch("value", start);
start();
