// A press of Train counts even if the button moves under the pointer while the plan above it is updated: a press where
// the button was a moment ago counts, and so does one that the button slips away from. gr.Blocks runs this function
// once the page is loaded.
() => {
  const AIMED = 1000; // ms in which who presses has not yet followed a button that moved
  const STEADY = 5; // px the pointer may move within a press; moving further cancels it
  const OTHERS = "a, button, input, textarea, select, label, summary, [tabindex]"; // what a press may be meant for
  const button = document.getElementById("start");
  let stands = null, stood = null, moved = -Infinity, pressed = null;

  function look() { // on the page, not in the window: scrolling moves nothing
    const { left, top, right, bottom } = button.getBoundingClientRect();
    const now = { left: left + scrollX, top: top + scrollY, right: right + scrollX, bottom: bottom + scrollY };
    if (stands && (Math.abs(now.top - stands.top) >= 1 || Math.abs(now.left - stands.left) >= 1)) {
      stood = stands;
      moved = performance.now();
    }
    stands = now;
  }

  function meant(event) {
    if (button.contains(event.target)) return true;
    if (performance.now() - moved > AIMED || event.target.closest(OTHERS)) return false;
    const x = event.clientX + scrollX, y = event.clientY + scrollY;
    return stood.left <= x && x <= stood.right && stood.top <= y && y <= stood.bottom;
  }

  const steps = new ResizeObserver(look);
  for (const step of document.querySelectorAll("#form, #form .step")) steps.observe(step);
  document.addEventListener("pointerdown", (event) => {
    look();
    pressed = event.isPrimary && event.button === 0 && meant(event) ? { x: event.clientX, y: event.clientY } : null;
  }, true);
  document.addEventListener("click", (event) => {
    const down = pressed;
    pressed = null;
    if (!down || Math.hypot(event.clientX - down.x, event.clientY - down.y) > STEADY) return;
    if (!button.contains(event.target) && !event.target.closest(OTHERS)) button.click();
  }, true);
}
