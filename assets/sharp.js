// Images far smaller than they are shown, as the built-in model's, are enlarged in whole pixels: smoothed, they look out
// of focus. gr.Blocks runs this function once a page is loaded.
() => {
  const SMALL = 128; // px
  const look = (image) => image.classList.toggle("small", image.naturalWidth > 0 && image.naturalWidth <= SMALL);
  const loaded = ({ target }) => target instanceof HTMLImageElement && look(target);
  document.addEventListener("load", loaded, true);
  document.querySelectorAll("img").forEach(look);
}
