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
// An excerpt is cut from the page itself, which a browser does not hand out from disk
if (location.protocol === "file:") DOCUMENTATION_OPTIONS.SHOW_SEARCH_SUMMARY = false;
