// A press of a button counts even if the button moves under the pointer while what is above it is updated: a press where
// the button was a moment ago counts, and so does one that the button slips away from. gr.Blocks runs this function
// once the page is loaded.
() => {
  const ROOMS = ["#start-room", "#settings-room", "#bar", "#panel"]; // what grows as answers come
  const BUTTONS = ROOMS.map((room) => `${room} button`).join();
  const AIMED = 1000; // ms in which who presses has not yet followed a button that moved
  const STEADY = 5; // px the pointer may move within a press; moving further cancels it
  const OTHERS = "a, button, input, textarea, select, label, summary, [tabindex]"; // what a press may be meant for
  const places = new WeakMap(); // of each button: where it is, where it was before, and when it moved
  let pressed = null;

  function look() { // on the page, not in the window: scrolling moves nothing
    for (const button of document.querySelectorAll(BUTTONS)) {
      const { left, top, right, bottom, width } = button.getBoundingClientRect();
      const now = { left: left + scrollX, top: top + scrollY, right: right + scrollX, bottom: bottom + scrollY };
      const known = places.get(button);
      if (!width) places.delete(button); // hidden: what is shown anew has not moved
      else if (!known) places.set(button, { now, before: now, moved: -Infinity });
      else if (Math.abs(now.top - known.now.top) >= 1 || Math.abs(now.left - known.now.left) >= 1)
        places.set(button, { now, before: known.now, moved: performance.now() });
      else known.now = now;
    }
  }

  function meant(event) { // the button that a press is meant for
    const other = event.target.closest(OTHERS);
    if (other) return places.has(other) ? other : null;
    const x = event.clientX + scrollX, y = event.clientY + scrollY;
    return [...document.querySelectorAll(BUTTONS)].find((button) => {
      const { before, moved } = places.get(button) ?? { moved: -Infinity };
      if (performance.now() - moved > AIMED || button.disabled) return false;
      return before.left <= x && x <= before.right && before.top <= y && y <= before.bottom;
    });
  }

  const sizes = new ResizeObserver(look);
  for (const part of document.querySelectorAll(ROOMS.flatMap((room) => [room, `${room} > *`]).join())) sizes.observe(part);
  let looked = 0;
  document.addEventListener("pointermove", () => { // also buttons that are new, before one is pressed
    if (performance.now() - looked < 100) return;
    looked = performance.now();
    look();
  }, { capture: true, passive: true });
  document.addEventListener("pointerdown", (event) => {
    look();
    const button = event.isPrimary && event.button === 0 ? meant(event) : null;
    pressed = button ? { button, x: event.clientX, y: event.clientY } : null;
  }, true);
  document.addEventListener("click", (event) => {
    const down = pressed;
    pressed = null;
    if (!down || Math.hypot(event.clientX - down.x, event.clientY - down.y) > STEADY) return;
    if (!down.button.contains(event.target) && !event.target.closest(OTHERS)) down.button.click();
  }, true);
}
