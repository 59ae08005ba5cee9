// The last of the files that belong to grid.js: what the page shows at first, and when another folder is opened.

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
  if (!data.whole) choose({}); // by now the pictures are on the page: read the captions
}

watch("value", start);
start();
