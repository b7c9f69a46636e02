"""The script of a report's page: sorts tables by column titles and searches them; the page also works without it.

Plain JavaScript without libraries, network access or evaluated text: it only moves and hides rows of the page.
"""

TABLES = """
"use strict";
(() => {
  const collator = new Intl.Collator(undefined, {numeric: true});
  const textOf = (cell) => cell.textContent.trim();

  // The number in a cell: data-value has it unrounded if the text is rounded or no number; NaN for words.
  const numberOf = (cell) => {
    const shown = cell.dataset.value ?? textOf(cell).replace(/,/g, "").replace(/ ?%$/, "");
    return shown === "" ? NaN : Number(shown);
  };

  const isNumeric = (head, cells) => head.classList.contains("number") ||
    cells.every((cell) => !Number.isNaN(numberOf(cell)) || ["", "\\u2013"].includes(textOf(cell)));

  // Rows in a new order (stable); cells without a number come last in both directions.
  const sorted = (rows, head, column, direction) => {
    const cells = rows.map((row) => row.cells[column]);
    const sign = direction === "ascending" ? 1 : -1;
    const numeric = isNumeric(head, cells);
    const keys = new Map(rows.map((row, place) => [row, (numeric ? numberOf : textOf)(cells[place])]));
    return [...rows].sort((first, second) => {
      const [a, b] = [keys.get(first), keys.get(second)];
      if (!numeric) return sign * collator.compare(a, b);
      if (Number.isNaN(a) || Number.isNaN(b)) return Number.isNaN(a) - Number.isNaN(b);
      return sign * ((a > b) - (a < b));
    });
  };

  const make = (tag, values) => Object.assign(document.createElement(tag), values);

  const makeSortable = (table, rows) => {
    const heads = [...table.tHead.rows[0].cells];
    heads.forEach((head, column) => {
      const button = make("button", {type: "button", title: "Sort by this column"});
      const printed = make("span", {className: "printed", textContent: head.textContent});
      button.append(...head.childNodes);
      head.append(button, printed);
      head.setAttribute("aria-sort", "none");
      button.addEventListener("click", () => {
        const before = head.getAttribute("aria-sort");
        const next = {none: "ascending", ascending: "descending", descending: "none"}[before];
        heads.forEach((other) => other.setAttribute("aria-sort", "none"));
        head.setAttribute("aria-sort", next);
        const order = next === "none" ? rows : sorted(rows, head, column, next);
        order.forEach((row) => table.tBodies[0].append(row));
      });
    });
  };

  const makeSearchable = (box, rows) => {
    const texts = rows.map((row) => [...row.cells].map(textOf).join(" ").toLowerCase());
    const field = make("input", {type: "search"});
    const label = make("label", {textContent: "Search the rows "});
    const count = make("output", {});
    const show = () => {
      const words = field.value.toLowerCase().split(/\\s+/);
      rows.forEach((row, place) => { row.hidden = !words.every((word) => texts[place].includes(word)); });
      const shown = rows.filter((row) => !row.hidden).length;
      count.textContent = `${shown} of ${rows.length} rows shown`;
    };
    const tools = make("p", {className: "tools"});
    label.append(field);
    tools.append(label, " ", count);
    box.before(tools);
    field.addEventListener("input", show);
    show();
  };

  const hintAtHiddenColumns = (box) => {
    const hint = make("p", {className: "hint", textContent: "Scroll sideways for more columns \\u2192", hidden: true});
    box.before(hint);
    new ResizeObserver(() => { hint.hidden = box.scrollWidth <= box.clientWidth + 1; }).observe(box);
  };

  document.querySelectorAll(".wide").forEach((box) => {
    const table = box.querySelector("table");
    const rows = [...table.tBodies[0].rows];
    hintAtHiddenColumns(box);
    if (table.tHead && rows.length > 2) makeSortable(table, rows);
    if (box.classList.contains("tall")) makeSearchable(box, rows);
  });
})();
"""
