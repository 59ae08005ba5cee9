// In the header: the project, and a menu of the others.

function makeSwitch() {
  const place = part("project");
  if (!place) return;
  const menu = make("div", "menu");
  const opener = button("switch", "");
  opener.append(make("span", "switch-name"));
  menu.id = "projects";
  menu.popover = "auto"; // the browser closes it on Escape and on a click elsewhere
  opener.popoverTargetElement = menu;
  menu.onbeforetoggle = ({ newState }) => {
    if (newState !== "open") return;
    const { left, bottom } = opener.getBoundingClientRect();
    Object.assign(menu.style, { left: `${Math.max(4, Math.min(left, innerWidth - 260))}px`, top: `${bottom}px` });
    drawMenu(menu);
  };
  place.replaceChildren(opener, menu);
}

const addressOf = (room, name) => `${room}?${new URLSearchParams({ project: name })}`;

async function drawMenu(menu) {
  const { projects = [] } = await peek("desk_recent");
  const links = projects.map((one) => {
    const link = Object.assign(make("a", "leads", one.name), { href: addressOf(location.pathname, one.name) });
    if (one.name === state.project) link.setAttribute("aria-current", "true");
    return link;
  });
  menu.replaceChildren(...links, Object.assign(make("a", "leads link", words.new), { href: "/?new=1" }));
}

function drawSwitch() {
  const opener = part("switch");
  if (!opener) return;
  const name = state.project || words.new;
  if (opener.firstChild.textContent !== name) opener.firstChild.textContent = name;
  opener.setAttribute("aria-label", fill(words.project, { name }));
}
