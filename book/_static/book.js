// Roles and names that screen readers need, and the theme's pages lack.
document.addEventListener("DOMContentLoaded", () => {
  for (const summary of document.querySelectorAll(".bd-sidenav summary")) {
    const link = summary.closest("li").querySelector("a");
    summary.setAttribute("aria-label", `Pages of ${link.textContent}`);
  }
  for (const source of document.querySelectorAll(".citation-list > .citation")) {
    source.setAttribute("role", "listitem");
  }
  for (const each of document.querySelectorAll("dt.sig dl, dt.sig dl > dd")) {
    each.setAttribute("role", "presentation"); // a function's arguments, one a line, define nothing
  }
});

// A wide formula scrolls sideways, so a keyboard must reach it; MathJax's menu, which the book does without, saw to that.
addEventListener("load", () => window.MathJax?.startup?.promise.then(() => {
  for (const formula of document.querySelectorAll("mjx-container[display]")) formula.tabIndex = 0;
}));
