// Roles and names that screen readers need, and the theme's pages lack.
document.addEventListener("DOMContentLoaded", () => {
  for (const summary of document.querySelectorAll(".bd-sidenav summary")) {
    const link = summary.closest("li").querySelector("a");
    summary.setAttribute("aria-label", `Pages of ${link.textContent}`);
  }
  for (const source of document.querySelectorAll(".citation-list > .citation")) {
    source.setAttribute("role", "listitem");
  }
});
