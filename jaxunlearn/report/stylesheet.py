"""The style sheet of report.html, embedded in the page, for phones, desktops, dark mode and print.

Colours are variables, which `page` also uses in figures: ink, soft lines and paper follow the reader's dark or light
setting, colours of data are fixed. Print is always black on white.
"""

CSS = """
:root { color-scheme: light dark; --ink: #1f2937; --soft: #5b6472; --quiet: #9ca3af; --paper: #fff; --line: #d8dee6;
  --shade: #f4f6f9; --mark: #0b5cad; --edge: rgb(31 41 55 / .3); }
@media (prefers-color-scheme: dark) {
  :root { --ink: #e6e9ee; --soft: #a5afbd; --quiet: #6b7280; --paper: #14181e; --line: #343c47; --shade: #1c222a;
    --mark: #7db8f5; --edge: rgb(230 233 238 / .3); }
}
* { box-sizing: border-box; }
html { -webkit-text-size-adjust: 100%; text-size-adjust: 100%; }
body { margin: 0 auto; max-width: 62rem; padding: 1.2rem 1rem 3rem; color: var(--ink); background: var(--paper);
  font: 1rem/1.55 system-ui, -apple-system, "Segoe UI", Roboto, "Helvetica Neue", Arial, sans-serif;
  overflow-wrap: anywhere; }
.answer, .summary div { padding: .7rem 1rem; border-left: .3rem solid var(--mark); background: var(--shade); }
.answer { margin: 0 0 1rem; font-size: 1.2rem; line-height: 1.45; font-weight: 600; }
.summary { display: grid; gap: .7rem; margin: 0 0 1rem; }
.summary dt { color: var(--mark); font-size: .92rem; font-weight: 600; }
.summary dd { margin: .1rem 0 0; max-width: 46rem; font-size: 1.1rem; line-height: 1.45; }
h1 { margin: 0 0 1.2rem; font-size: 1rem; font-weight: 500; color: var(--soft); }
h2 { margin: 2.2rem 0 .5rem; padding-top: .5rem; border-top: 1px solid var(--line); font-size: 1.2rem; }
p { margin: .5rem 0; max-width: 46rem; }
.notes ul { margin: .5rem 0; padding-left: 1.2rem; max-width: 46rem; }
.wide { overflow: auto; margin: .8rem 0; border: 1px solid var(--line); border-radius: .4rem;
  scrollbar-width: thin; scrollbar-color: var(--quiet) var(--shade);
  background: linear-gradient(to left, var(--paper) 45%, transparent) right / 3rem 100% no-repeat local,
    linear-gradient(to left, var(--edge), transparent) right / 1.2rem 100% no-repeat scroll; }
.tall { max-height: min(36rem, 75vh); }
table { border-collapse: separate; border-spacing: 0; width: 100%; font-size: .88rem;
  font-variant-numeric: tabular-nums; overflow-wrap: break-word; }
.caption { margin-top: 1.2rem; color: var(--soft); font-size: .92rem; }
.caption b { color: var(--ink); }
.hint, .tools { color: var(--soft); font-size: .85rem; }
.tools input { width: 14rem; max-width: 100%; padding: .3rem .5rem; border: 1px solid var(--quiet);
  border-radius: .3rem; font: inherit; color: var(--ink); background: var(--paper); }
th, td { padding: .35rem .7rem; border-bottom: 1px solid var(--line); text-align: left; vertical-align: top; }
thead th { position: sticky; top: 0; z-index: 1; vertical-align: bottom; background: var(--shade); }
thead button { padding: 0; border: 0; font: inherit; color: inherit; text-align: inherit; background: none;
  cursor: pointer; }
.printed { display: none; }
thead button::after { content: " \\25b4\\25be"; color: var(--quiet); }
[aria-sort=ascending] button::after { content: " \\25b4"; color: var(--mark); }
[aria-sort=descending] button::after { content: " \\25be"; color: var(--mark); }
thead th:first-child, tbody th { position: sticky; left: 0; }
thead th:first-child { z-index: 2; }
tbody th { font-weight: 600; background: var(--paper); }
tbody tr:last-child > * { border-bottom: 0; }
.number { text-align: right; }
td.number, td.short { white-space: nowrap; }
td.long { min-width: 17rem; }
td b { color: var(--mark); }
small { display: block; font-size: .78rem; color: var(--soft); }
:focus-visible { outline: 2px solid var(--mark); outline-offset: 1px; }
figure { margin: 1rem 0; padding: .5rem; max-width: 44rem; border: 1px solid var(--line); border-radius: .4rem; }
figure svg { display: block; width: 100%; height: auto; fill: var(--ink); stroke-linejoin: round;
  stroke-linecap: butt; }
.provenance th { width: 12rem; }
.provenance td { overflow-wrap: anywhere; font-family: ui-monospace, Menlo, Consolas, monospace; font-size: .8rem; }
@media (max-width: 34rem) {
  .answer { font-size: 1.08rem; }
  .summary dd { font-size: 1rem; }
  .summary div { padding: .5rem .8rem; }
  th, td { padding: .35rem .5rem; }
  tbody th { max-width: 42vw; }
  figure { margin: 1rem -.5rem; padding: .2rem; }
  .provenance th { width: 6.5rem; }
}
@media print {
  :root { color-scheme: light; --ink: #000; --soft: #444; --quiet: #777; --paper: #fff; --line: #bbb; --shade: #fff;
    --mark: #000; }
  body { max-width: none; padding: 0; font-size: 10pt; }
  .wide { overflow: visible; max-height: none; border: 0; background: none; }
  table { font-size: 7.5pt; }
  thead { display: table-header-group; break-inside: avoid; }
  thead th, thead th:first-child, tbody th { position: static; max-width: none; }
  tbody tr[hidden] { display: table-row; }
  th, td { padding: .15rem .25rem; }
  td { overflow-wrap: anywhere; }
  td.number, td.short, td.long { min-width: 0; white-space: normal; overflow-wrap: break-word; }
  .hint, .tools, thead button { display: none; }
  .printed { display: inline; }  /* a button is not repeated on the next page */
  figure { max-width: 14cm; }
  figure svg { max-height: 22cm; }
  figure, tr, .answer, .summary div { break-inside: avoid; }
  h2, .caption { break-after: avoid; }
}
"""
