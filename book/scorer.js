// The search page: chapters come before the pages of single runs, and before those of the reader's own machine.
var Scorer = {
  score: ([page, , , , score]) => score - (page.startsWith("book/runs/quick") ? 200 : page.startsWith("book/runs/") ? 100 : 0),
  // Sphinx's own, which it takes from here or not at all
  objNameMatch: 11,
  objPartialMatch: 6,
  objPrio: { 0: 15, 1: 5, 2: -5 },
  objPrioDefault: 0,
  title: 15,
  partialTitle: 7,
  term: 5,
  partialTerm: 2,
};
// An excerpt is cut from the page, which a browser does not hand out from disk; its text is in texts.js
if (location.protocol === "file:") {
  window.fetch = async (address) => {
    const main = document.createElement("div");
    main.setAttribute("role", "main");
    main.textContent = TEXTS[address.replace(/^\.\/|\.html$/g, "")];
    return { text: async () => main.outerHTML };
  };
}
