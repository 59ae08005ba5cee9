// Small makers for the scripts of our elements, in one scope with them: PREFIX is theirs, and begins their classes.

const fill = (text, values = {}) => text.replace(/\{(\w+)\}/g, (place, name) => values[name] ?? place);

function make(kind, name, text = "") {
  const node = document.createElement(kind);
  node.className = name
    .split(" ")
    .map((one) => `${PREFIX}-${one}`)
    .join(" ");
  if (text) node.textContent = text;
  return node;
}

function button(name, text, pressed) {
  const node = Object.assign(make("button", name, text), { type: "button" });
  node.onclick = pressed;
  return node;
}
