// Roles and names that screen readers need, and the theme's pages lack.
document.addEventListener("DOMContentLoaded", () => {
  for (const summary of document.querySelectorAll(".bd-sidenav summary")) {
    const link = summary.closest("li").querySelector("a");
    summary.setAttribute("aria-label", `Pages of ${link.textContent}`);
  }
  // The side bar's parts unfold, and only the one where you are is open
  for (const list of document.querySelectorAll(".bd-sidenav:not(.bd-sidenav__home-link, .bd-sidenav .bd-sidenav)")) {
    const part = document.createElement("details");
    part.append(document.createElement("summary"), list.cloneNode(true));
    part.firstChild.append(list.previousElementSibling.textContent);
    part.open = list.classList.contains("current");
    list.previousElementSibling.remove();
    list.replaceWith(part);
  }
  document.querySelector(".bd-sidebar-primary")?.scrollTo(0, 0); // the theme has scrolled to where the page was before
  // Captions beside figures hide the contents, which the theme also looks for on pages that have none
  if (!document.querySelector("div.bd-sidebar-secondary")) {
    document.body.append(Object.assign(document.createElement("div"), { className: "bd-sidebar-secondary", hidden: true }));
  }
  // On a phone a row of a wide table is a card, whose cells say what they are
  for (const table of document.querySelectorAll(".bd-article table")) {
    const heads = [...table.querySelectorAll("thead th")].map((each) => each.textContent);
    table.classList.toggle("cards", heads.length > 3);
    const box = table.parentElement;
    table.classList.toggle("wide", table.offsetWidth > 544); // the column's width
    box.classList.toggle("full-width", box.scrollWidth > box.clientWidth); // by the theme's class, into the margin
    let row; // a row without a name of its own goes on with the last one's
    for (const cell of table.querySelectorAll("tbody td")) {
      const said = cell.textContent.trim();
      if (!cell.cellIndex && said) row = said;
      cell.dataset.label = said || cell.cellIndex ? heads[cell.cellIndex] ?? "" : row;
      cell.classList.toggle("empty", !said);
    }
  }
  if (matchMedia("(max-width: 575px)").matches) { // plots scroll sideways there, so a keyboard must reach them
    for (const plot of document.querySelectorAll("figure.plot")) plot.tabIndex = 0;
  }
  for (const source of document.querySelectorAll(".citation-list > .citation")) {
    source.setAttribute("role", "listitem");
  }
  for (const each of document.querySelectorAll("dt.sig dl, dt.sig dl > dd")) {
    each.setAttribute("role", "presentation"); // a function's arguments, one a line, define nothing
  }
});

// A page's notebook is in a script, which a page on disk may load, unlike any other file
const loadNotebook = (src) => document.body.append(Object.assign(document.createElement("script"), { src }));
const saveNotebook = (download, notebook) => {
  const file = new Blob([JSON.stringify(notebook, null, 1)], { type: "application/x-ipynb+json" });
  Object.assign(document.createElement("a"), { download, href: URL.createObjectURL(file) }).click();
};

// A wide formula scrolls sideways, so a keyboard must reach it; MathJax's menu, which the book does without, saw to that.
addEventListener("load", () => window.MathJax?.startup?.promise.then(() => {
  for (const formula of document.querySelectorAll("mjx-container[display]")) {
    formula.tabIndex = 0;
    formula.classList.toggle("wide", formula.scrollWidth > formula.clientWidth);
  }
}));
