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
  if (!data) return;
  say(words.keys, "hint");
  // Reading all captions keeps the server busy: first the pictures that are in view
  const opened = props.value;
  pictured().then(() => props.value === opened && !data.whole && choose({}));
}

watch("value", start);
start();
