// A folder of this computer, chosen by going there.

function makeBrowse() {
  const place = part("browse");
  if (!place) return;
  const dialog = make("dialog", "dialog");
  dialog.setAttribute("aria-label", words.browse);
  const show = async (path) => {
    const found = await peek("desk_folders", { path });
    if (found.error) return dialog.replaceChildren(make("p", "wrong", found.error));
    const list = make("div", "folders");
    if (found.path) list.append(button("folder", `↑ ${found.parent || words.places}`, () => show(found.parent)));
    list.append(...found.folders.map((one) => button("folder", one.name, () => show(one.path))));
    const feet = make("div", "dialog-feet");
    feet.append(button("plain", words.cancel, () => dialog.close()));
    if (found.path) {
      const label = fill(words.choose, { images: found.images });
      feet.append(
        button("soft", label, () => {
          dialog.close();
          enter(rows.get("dataset.images"), found.path);
        }),
      );
    }
    dialog.replaceChildren(make("h3", "label", found.path || words.places), list, feet);
    list.querySelector("button")?.focus();
  };
  const open = button("plain", words.browse, () => {
    show(state.values["dataset.images"]);
    dialog.showModal();
  });
  place.replaceChildren(open, dialog);
}
