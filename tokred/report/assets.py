"""Style sheet and script of the report. They are written into the page: it needs no other file and no network."""

from __future__ import annotations

CSS = """
:root { --ink: #1f2430; --soft: #5a606b; --line: #dfe2e8; --page: #ffffff; --panel: #f6f7f9; --accent: #00598c;
  --warn: #8a4b00; --warn-back: #fff4e2; --bad: #a32a00; }
@media screen and (prefers-color-scheme: dark) {
  :root { --ink: #e7e9ee; --soft: #a5abb8; --line: #363b47; --page: #15181e; --panel: #1d2129; --accent: #7cc4f2;
    --warn: #ffcf8a; --warn-back: #35280f; --bad: #ff9d7a; }
  .mark { background: #fff; border-radius: 3px; }
}
* { box-sizing: border-box; }
html { -webkit-text-size-adjust: 100%; text-size-adjust: 100%; color-scheme: light dark; }
body { margin: 0; background: var(--page); color: var(--ink); font: 16px/1.5 system-ui, -apple-system, "Segoe UI",
  Roboto, "Helvetica Neue", Arial, "DejaVu Sans", sans-serif; overflow-wrap: anywhere; }
main { max-width: 1200px; margin: 0 auto; padding: 28px 24px 48px; }
h1 { font-size: 1.7rem; line-height: 1.2; margin: 0 0 .4em; letter-spacing: -.01em; }
h2 { font-size: 1.2rem; margin: 2.2em 0 .7em; }
h3 { font-size: 1rem; margin: 1.6em 0 .5em; }
nav + .run, .run + .run { border-top: 3px solid var(--line); margin-top: 56px; padding-top: 28px; }
.run > h1 { font-size: 1.45rem; }
p { margin: .5em 0; max-width: 75ch; }
.lead { font-size: 1.05rem; }
.soft, figcaption, .legend { color: var(--soft); font-size: .88rem; }
.legend { margin: .7em 0; padding-left: 1.2em; max-width: 90ch; }
a { color: var(--accent); }
.alert { border-left: 4px solid var(--warn); background: var(--warn-back); padding: 10px 14px; margin: 16px 0;
  border-radius: 0 6px 6px 0; max-width: none; }
.cards { display: grid; grid-template-columns: repeat(auto-fit, minmax(215px, 1fr)); gap: 12px; margin: 22px 0 8px; }
.card { background: var(--panel); border: 1px solid var(--line); border-radius: 10px; padding: 12px 14px; }
.card h2 { margin: 0 0 .5em; font-size: .8rem; text-transform: uppercase; letter-spacing: .05em; color: var(--soft); }
.card dl { margin: 0; } .card dt { font-size: .82rem; color: var(--soft); }
.card dd { margin: 0 0 .5em; font-variant-numeric: tabular-nums; } .card dd:last-child { margin: 0; }
.card b { font-size: 1.08rem; }
.mark { vertical-align: -1px; margin-right: 6px; flex: none; }
.scroll { overflow-x: auto; border: 1px solid var(--line); border-radius: 10px; }
.scroll:focus-visible { outline: 2px solid var(--accent); outline-offset: 2px; }
table { border-collapse: separate; border-spacing: 0; width: 100%; font-size: .86rem; line-height: 1.3;
  font-variant-numeric: tabular-nums; overflow-wrap: normal; }
th, td { padding: 7px 9px; text-align: right; border-bottom: 1px solid var(--line); white-space: nowrap;
  vertical-align: top; }
tbody:last-child tr:last-child > * { border-bottom: 0; }
.left { text-align: left; }
td.left { white-space: normal; max-width: 22em; overflow-wrap: anywhere; }
td:nth-child(2) { min-width: 7em; }
thead th { vertical-align: bottom; background: var(--panel); font-weight: 600; }
tbody th { font-weight: 600; background: var(--page); max-width: 13em; white-space: normal; }
tbody th > span { display: flex; align-items: baseline; overflow-wrap: break-word; min-width: 0; }
tbody th > span > span { min-width: 0; }
thead th:first-child, tbody th { position: sticky; left: 0; z-index: 1; text-align: left; }
tr.group th { background: var(--panel); font-size: .8rem; color: var(--soft); max-width: none; }
tr.group th span { position: sticky; left: 9px; display: inline-block; }
td small { display: block; color: var(--soft); font-size: .9em; }
td i { font-style: normal; display: inline-block; width: 0; } /* a mark beside the digits, which stay aligned */
td.high, td.sig { font-weight: 700; } td.high small, td.sig small { font-weight: 400; }
thead button { all: unset; cursor: pointer; text-align: inherit; white-space: nowrap; }
thead button:hover { color: var(--accent); } thead button:focus-visible { outline: 2px solid var(--accent); }
[aria-sort=descending] button::after { content: " \\25BE"; } [aria-sort=ascending] button::after { content: " \\25B4"; }
.hint { display: none; } .js .hint { display: block; }
.swipe { display: none; } .js .over > .swipe { display: block; } .swipe::before { content: "\\2194\\00a0 "; }
.over > .scroll { box-shadow: inset -14px 0 12px -12px rgb(0 0 0 / .35); }
.words tbody th { max-width: none; } .words tbody th > span { width: max-content; max-width: 27em; }
td.bad { color: var(--bad); font-weight: 700; } .against li { overflow-wrap: anywhere; }
figure { margin: 20px 0; } figcaption { margin-top: 6px; }
.plate { background: #fff; border: 1px solid var(--line); border-radius: 10px; padding: 10px; }
.plate svg { display: block; width: 100%; height: auto; }
.tall { display: none; }
ul.plain { list-style: none; padding: 0; margin: 0; }
ul.plain li { padding: 5px 0; border-bottom: 1px solid var(--line); }
ul.plain li:last-child { border: 0; }
.tag { font-size: .78rem; font-weight: 600; color: var(--warn); border: 1px solid currentColor; border-radius: 5px;
  padding: 0 6px; margin-right: 6px; white-space: nowrap; } .tag.failed { color: var(--bad); }
code, pre { font: .86em/1.45 ui-monospace, SFMono-Regular, Menlo, Consolas, "DejaVu Sans Mono", monospace; }
pre { background: var(--panel); border: 1px solid var(--line); border-radius: 8px; padding: 12px 14px; margin: 10px 0;
  white-space: pre-wrap; }
dl.facts { display: grid; grid-template-columns: repeat(auto-fill, minmax(250px, 1fr)); gap: 8px 24px; margin: 0; }
dl.facts dt { color: var(--soft); font-size: .8rem; } dl.facts dd { margin: 0; }
dl.terms { margin: 0; columns: 2 380px; column-gap: 36px; font-size: .92rem; }
dl.terms div { break-inside: avoid; padding-bottom: 12px; } dl.terms dt { font-weight: 600; } dl.terms dd { margin: 0; }
footer { margin-top: 44px; color: var(--soft); font-size: .85rem; }
@media (max-width: 640px) {
  main { padding: 20px 14px 36px; } h1 { font-size: 1.35rem; }
  .wide { display: none; } .tall { display: block; } .plate { padding: 6px; }
  .cards { grid-template-columns: 1fr 1fr; } .card { padding: 10px 12px; } .card:first-child { grid-column: 1 / -1; }
  .card:first-child dl { columns: 2; } .card:first-child dt { break-after: avoid; }
  tbody th { max-width: 8.5em; } th, td { padding: 6px 7px; }
  td:nth-child(2) { min-width: 4.8em; }
  .words tbody th > span { max-width: 10.5em; } .words td:nth-child(2) { min-width: 0; }
  .words td.left { min-width: 9em; } html:not(.js) .swipe { display: block; }
  dl.facts { grid-template-columns: repeat(auto-fill, minmax(140px, 1fr)); gap: 8px 16px; }
}
@media (max-width: 340px) { .cards { grid-template-columns: 1fr; } }
@page { size: A4; margin: 13mm; }
@page table { size: A4 landscape; margin: 11mm; }
@media print {
  html { font-size: 9.5pt; color-scheme: light; } body { font-size: 1rem; } main { padding: 0; max-width: none; }
  .wide { display: block; } .tall, .hint, .swipe, nav { display: none !important; }
  .words tbody th > span { width: auto; }
  .results { page: table; } .results h2 { margin-top: 0; } .results + .results h2 { margin-top: 1.6em; }
  .results.narrow { page: auto; } .narrow h2 { margin-top: 1.6em; }
  .narrow thead th, .narrow td { white-space: normal; }
  .scroll { overflow: visible; border: 0; } table { font-size: 7.4pt; } th, td { padding: 2.2pt 3.5pt; }
  thead th:first-child, tbody th { position: static; } thead { display: table-header-group; break-inside: avoid; }
  thead button { display: contents; } /* Chromium leaves buttons out of a heading that it repeats */
  tr, figure, .card, li { break-inside: avoid; } h2, h3, tr.group { break-after: avoid; }
  .plate, .card { border-color: #ccc; } nav + .run, .run + .run { border: 0; margin: 0; padding: 0; }
  [id].run + [id].run { break-before: page; } .plate { max-width: 140mm; } dl.facts div { break-inside: avoid; }
  .cards { grid-template-columns: repeat(auto-fit, minmax(125px, 1fr)); gap: 8px; margin: 12px 0 4px; }
  dl.facts, h2 + p { break-inside: avoid; } h2 + p:has(+ pre) { break-after: avoid; }
  h2 { margin-top: 1.6em; } dl.terms { columns: 2; } figure { margin: 10px 0; }
  * { print-color-adjust: exact; -webkit-print-color-adjust: exact; }
}
"""

# Sorts inside each budget: rows of different budgets are not comparable.
JS = """
document.documentElement.classList.add("js");
// A table that is wider than its frame says so.
const wide = new ResizeObserver(all => {
  for (const { target } of all)
    target.parentElement.classList.toggle("over", target.scrollWidth > target.clientWidth + 1);
});
document.querySelectorAll(".scroll").forEach(frame => wide.observe(frame));
for (const table of document.querySelectorAll("table.sortable")) {
  const heads = [...table.tHead.rows[0].cells];
  const value = (row, i) => row.cells[i].dataset.s;
  // "r=8" before "r=16": the numbers inside words count as numbers.
  const parts = text => text.split(/([0-9]+(?:[.][0-9]+)?)/);
  const words = (x, y) => {
    const a = parts(x), b = parts(y);
    for (let k = 0; k < Math.min(a.length, b.length); k++) {
      const order = k % 2 ? a[k] - b[k] : a[k].localeCompare(b[k]);
      if (order) return order;
    }
    return a.length - b.length;
  };
  const sort = (i, down) => {
    // One order for the whole column: numbers where every value is one, else words.
    const all = [...table.tBodies].flatMap(body => [...body.rows]).filter(r => !r.classList.contains("group"));
    const numeric = all.every(r => !Number.isNaN(Number(value(r, i))));
    for (const body of table.tBodies) {
      const rows = [...body.rows].filter(r => !r.classList.contains("group"));
      rows.sort((a, b) => {
        const x = value(a, i), y = value(b, i);
        if (x === "" || y === "") return (x === "") - (y === "");
        const order = numeric ? x - y : words(x, y);
        return down ? -order : order;
      });
      body.append(...rows);
    }
    heads.forEach((h, k) => k === i ? h.setAttribute("aria-sort", down ? "descending" : "ascending")
      : h.removeAttribute("aria-sort"));
  };
  heads.forEach((head, i) => {
    const button = document.createElement("button");
    button.append(...head.childNodes);
    button.title = head.title;
    button.type = "button";
    head.append(button);
    button.addEventListener("click", () => {
      const now = head.getAttribute("aria-sort");
      sort(i, now ? now === "ascending" : !head.classList.contains("left"));
    });
  });
}
"""
