"""The look of report.html: one style sheet, written into the page, for phones, desktops, dark rooms and paper.

Figures are drawn for white paper; in the dark they keep a white card behind them rather than being recoloured, because
inverted colours would no longer match the words "blue" and "red" of a legend.
"""

CSS = """
:root { color-scheme: light dark; --ink: #1f2937; --soft: #5b6472; --paper: #fff; --line: #d8dee6; --shade: #f4f6f9;
  --mark: #0b5cad; }
@media (prefers-color-scheme: dark) {
  :root { --ink: #e6e9ee; --soft: #a5afbd; --paper: #14181e; --line: #343c47; --shade: #1c222a; --mark: #7db8f5; }
}
* { box-sizing: border-box; }
html { -webkit-text-size-adjust: 100%; text-size-adjust: 100%; }
body { margin: 0 auto; max-width: 62rem; padding: 1.2rem 1rem 3rem; color: var(--ink); background: var(--paper);
  font: 1rem/1.55 system-ui, -apple-system, "Segoe UI", Roboto, "Helvetica Neue", Arial, sans-serif;
  overflow-wrap: break-word; }
.answer { margin: 0 0 1rem; padding: .8rem 1rem; border-left: .3rem solid var(--mark); background: var(--shade);
  font-size: 1.2rem; line-height: 1.45; font-weight: 600; }
h1 { margin: 0 0 1.2rem; font-size: 1rem; font-weight: 500; color: var(--soft); }
h2 { margin: 2.2rem 0 .5rem; padding-top: .5rem; border-top: 1px solid var(--line); font-size: 1.2rem; }
p { margin: .5rem 0; max-width: 46rem; }
.wide { overflow-x: auto; margin: .8rem 0; border: 1px solid var(--line); border-radius: .4rem; }
table { border-collapse: collapse; width: 100%; font-size: .88rem; font-variant-numeric: tabular-nums; }
.caption { margin-top: 1.2rem; color: var(--soft); font-size: .92rem; }
.caption b { color: var(--ink); }
th, td { padding: .35rem .7rem; border-bottom: 1px solid var(--line); text-align: left; vertical-align: top; }
thead th { vertical-align: bottom; background: var(--shade); }
thead th:first-child, tbody th { position: sticky; left: 0; }
tbody th { font-weight: 600; overflow-wrap: normal; background: var(--paper); }
tbody tr:last-child > * { border-bottom: 0; }
.number { text-align: right; }
td.number { white-space: nowrap; }
td b { color: var(--mark); }
small { display: block; font-size: .78rem; color: var(--soft); }
details { margin: .8rem 0; }
summary { cursor: pointer; padding: .5rem 0; color: var(--mark); }
figure { margin: 1rem 0; padding: .5rem; max-width: 44rem; background: #fff; border: 1px solid var(--line);
  border-radius: .4rem; }
figure svg { display: block; width: 100%; height: auto; }
.provenance th { width: 12rem; }
.provenance td { overflow-wrap: anywhere; font-family: ui-monospace, Menlo, Consolas, monospace; font-size: .8rem; }
@media (max-width: 34rem) {
  .answer { font-size: 1.08rem; }
  figure { margin: 1rem -.5rem; padding: .2rem; }
  .provenance th { width: 6.5rem; }
}
@media print {
  :root { --ink: #000; --soft: #444; --paper: #fff; --line: #bbb; --shade: #fff; --mark: #000; }
  body { max-width: none; padding: 0; font-size: 10pt; }
  .wide { overflow: visible; }
  figure, tr, .answer { break-inside: avoid; }
  h2 { break-after: avoid; }
}
"""
