// The mask of the open picture, drawn with a brush or as a shape. The canvas holds what is not learnt, in red; the
// server keeps it as a grey picture in which white is learnt. Each stroke is one change that can be undone.

const MASK_PX = 1024; // long side at most
const RED = "#d92d20";
const surface = part("mask");
const pen = surface.getContext("2d", { willReadFrequently: true });
let brush = "hide"; // or "learn"
let drawn = null; // the view whose mask the canvas holds; only that one is drawn on

function resize() {
  const [width, height] = view.data.size;
  const scale = Math.min(1, MASK_PX / Math.max(width, height));
  const wanted = [Math.max(1, Math.round(width * scale)), Math.max(1, Math.round(height * scale))];
  if (surface.width !== wanted[0] || surface.height !== wanted[1]) [surface.width, surface.height] = wanted;
}

// Show the picture's mask: black becomes red, white is clear.
async function showMask() {
  const of = view, { mask, own_mask: own } = of.data;
  part("clear").disabled = !own;
  const old = () => of !== view || of.busy || of.data.mask !== mask; // what is drawn now goes before what was told
  if (old() || (drawn === of && of.mask === mask)) return;
  const image = new Image();
  if (mask) {
    image.src = mask;
    await image.decode();
  }
  if (old()) return;
  drawn = of;
  of.mask = mask;
  resize();
  pen.globalCompositeOperation = "source-over";
  pen.clearRect(0, 0, surface.width, surface.height);
  if (!mask) return;
  pen.drawImage(image, 0, 0, surface.width, surface.height);
  const pixels = pen.getImageData(0, 0, surface.width, surface.height);
  for (let i = 0; i < pixels.data.length; i += 4) {
    pixels.data[i + 3] = 255 - pixels.data[i];
    [pixels.data[i], pixels.data[i + 1], pixels.data[i + 2]] = [217, 45, 32];
  }
  pen.putImageData(pixels, 0, 0);
}

function layer() {
  const canvas = Object.assign(document.createElement("canvas"), { width: surface.width, height: surface.height });
  return [canvas, canvas.getContext("2d")];
}

// The mask as a PNG, grey; all white where all is learnt, which goes before a mask that the folder holds.
function exported() {
  const [black, ink] = layer();
  ink.drawImage(surface, 0, 0);
  ink.globalCompositeOperation = "source-in";
  ink.fillRect(0, 0, black.width, black.height);
  const [sheet, paper] = layer();
  paper.fillStyle = "white";
  paper.fillRect(0, 0, sheet.width, sheet.height);
  paper.drawImage(black, 0, 0);
  return sheet.toDataURL("image/png");
}

async function keepMask() {
  const of = view;
  of.busy += 1;
  await changePicture("set_mask", { png: exported() });
  of.busy -= 1;
}

const drawable = () => view !== null && drawn === view; // else another picture's mask is still on the canvas

function line(from, to) {
  pen.globalCompositeOperation = brush === "hide" ? "source-over" : "destination-out";
  pen.strokeStyle = RED;
  pen.lineCap = pen.lineJoin = "round";
  pen.lineWidth = (Number(part("brush-size").value) / 100) * Math.max(surface.width, surface.height);
  pen.beginPath();
  pen.moveTo(from[0] * surface.width, from[1] * surface.height);
  pen.lineTo(to[0] * surface.width, to[1] * surface.height + 0.01);
  pen.stroke();
}

part("canvas").addEventListener("pointerdown", (event) => {
  if (mode !== "mask" || event.button !== 0 || !drawable()) return;
  event.preventDefault();
  const canvas = part("canvas");
  canvas.setPointerCapture(event.pointerId);
  const of = view;
  of.busy += 1;
  let last = pointed(event);
  line(last, last);
  canvas.onpointermove = (moved) => {
    line(last, pointed(moved));
    last = pointed(moved);
  };
  canvas.onpointerup = canvas.onpointercancel = () => {
    canvas.onpointermove = canvas.onpointerup = canvas.onpointercancel = null;
    of.busy -= 1;
    keepMask();
  };
});

// Only the shape around the focus point is learnt, beside what was learnt before by choice.
function shape(kind) {
  if (!drawable()) return;
  const { width, height } = surface;
  const { data: alpha } = pen.getImageData(0, 0, width, height);
  pen.globalCompositeOperation = "source-over";
  pen.fillStyle = RED;
  if (!alpha.some((value, i) => i % 4 === 3 && value)) pen.fillRect(0, 0, width, height);
  pen.globalCompositeOperation = "destination-out";
  const [x, y] = view.at ?? [0.5, 0.5];
  const w = (Number(part("shape-width").value) / 100) * width, h = (Number(part("shape-height").value) / 100) * height;
  pen.beginPath();
  if (kind === "ellipse") pen.ellipse(x * width, y * height, w / 2, h / 2, 0, 0, 2 * Math.PI);
  else pen.rect(x * width - w / 2, y * height - h / 2, w, h);
  pen.fill();
  keepMask();
}

function setBrush(chosen) {
  brush = chosen;
  for (const one of ["hide", "learn"]) part(`brush-${one}`).setAttribute("aria-pressed", String(one === brush));
}

element.addEventListener("looked", showMask);
element.addEventListener("named", () => {
  for (const name of ["brush-hide", "brush-learn", "rectangle", "ellipse", "invert", "clear", "mask-hint"])
    part(name).textContent = words[`mask.${name}`];
  for (const name of ["brush", "shape-width", "shape-height"]) part(`label-${name}`).textContent = words[`mask.${name}`];
  part("brushes").setAttribute("aria-label", words["mask.brush"]);
  setBrush("hide");
});
part("brush-hide").onclick = () => setBrush("hide");
part("brush-learn").onclick = () => setBrush("learn");
part("rectangle").onclick = () => shape("rectangle");
part("ellipse").onclick = () => shape("ellipse");
part("invert").onclick = () => {
  if (!drawable()) return;
  pen.globalCompositeOperation = "xor";
  pen.fillStyle = RED;
  pen.fillRect(0, 0, surface.width, surface.height);
  keepMask();
};
part("clear").onclick = () => changePicture("set_mask", { png: null });
