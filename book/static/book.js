// A click on a figure, or Enter, shows it as large as the window; a click or Escape closes it.
const dialog = document.createElement("dialog");
dialog.className = "zoom";
dialog.addEventListener("click", () => dialog.close());
// Sphinx's own use of Escape keeps the browser from closing it.
dialog.addEventListener("keydown", (event) => event.key === "Escape" && dialog.close());
document.body.append(dialog);

for (const figure of document.querySelectorAll("article img")) {
  if (figure.closest("a")) continue;
  const open = () => {
    dialog.replaceChildren(figure.cloneNode());
    dialog.showModal();
  };
  figure.tabIndex = 0;
  figure.addEventListener("click", open);
  figure.addEventListener("keydown", (event) => event.key === "Enter" && open());
}
