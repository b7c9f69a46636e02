"""The script of the page, run by node on a document that is just large enough."""

import json
import shutil
import subprocess

import pytest

from jaxunlearn.report import script

DOCUMENT = """
class Element {
  constructor(tag) { this.tag = tag; this.children = []; this.attributes = {}; this.dataset = {}; this.listeners = {};
    this.hidden = false; this.value = ""; this.className = ""; this.beside = []; this.clientWidth = 100;
    this.scrollWidth = 100; }
  get classList() { return {contains: (name) => this.className.split(" ").includes(name)}; }
  get childNodes() { return this.children; }
  get textContent() { return this.children.map((child) => child.textContent ?? child).join(""); }
  set textContent(text) { this.children = [text]; }
  append(...added) { this.children = [...this.children.filter((child) => !added.includes(child)), ...added]; }
  before(element) { this.beside.push(element); }
  setAttribute(name, value) { this.attributes[name] = value; }
  getAttribute(name) { return this.attributes[name]; }
  addEventListener(name, work) { this.listeners[name] = work; }
}
const observed = [];
globalThis.ResizeObserver = class { constructor(work) { this.work = work; }
  observe() { observed.push(this.work); this.work(); } };
const element = (tag, text, values = {}) => Object.assign(new Element(tag), {children: [text]}, values);
const build = ({heads, rows, tall}) => {
  const table = new Element("table"), body = new Element("tbody"), box = new Element("div");
  const row = (cells) => Object.assign(new Element("tr"), {cells});
  const cell = (content) => typeof content === "string" ? element("td", content)
    : element("td", content[0], {dataset: {value: content[1]}});
  body.children = rows.map((contents) => row(contents.map(cell)));
  Object.defineProperty(body, "rows", {get: () => body.children});
  const head = row(heads.map(([text, kind]) => element("th", text, {className: kind})));
  Object.assign(table, {tHead: {rows: [head]}, tBodies: [body]});
  Object.assign(box, {className: tall ? "wide tall" : "wide", querySelector: () => table});
  return {box, table, body, head};
};
const input = JSON.parse(require("fs").readFileSync(0, "utf-8"));
const built = build(input);
globalThis.document = {querySelectorAll: () => [built.box], createElement: (tag) => new Element(tag)};
"""
ACTIONS = """
const button = (column) => built.head.cells[column].children.find((child) => child.tag === "button");
const field = () => built.box.beside.find((element) => element.className === "tools").children[0].children.at(-1);
const shown = () => built.body.rows.filter((row) => !row.hidden).map((row) => row.cells[0].textContent);
const states = input.actions.map(([what, value]) => {
  if (what === "click") button(value).listeners.click();
  if (what === "search") { field().value = value; field().listeners.input(); }
  if (what === "width") { built.box.scrollWidth = value; observed.forEach((work) => work()); }
  const beside = built.box.beside.map((element) => element.hidden ? "" : element.textContent);
  return {shown: shown(), sorted: built.head.cells.map((head) => head.getAttribute("aria-sort")), beside};
});
console.log(JSON.stringify(states));
"""
needs_node = pytest.mark.skipif(shutil.which("node") is None, reason="no node to run JavaScript")


def run(heads, rows, *actions, tall=False):
    """The states of the table after each action."""
    table = {"heads": heads, "rows": rows, "tall": tall, "actions": actions}
    code = f"{DOCUMENT}\n{script.TABLES}\n{ACTIONS}"
    process = subprocess.run(["node", "-e", code], input=json.dumps(table), capture_output=True, text=True, timeout=60)
    assert process.returncode == 0, process.stderr
    return json.loads(process.stdout)


@needs_node
def test_numbers_are_sorted_as_numbers_with_words_last_and_the_third_click_restores():
    rows = [["a", ["0.9", "0.91"]], ["b", ["–", ""]], ["c", ["1,234", "1234"]], ["d", "0.9"], ["e", "9e-5"],
            ["f", ["0.9", "0.91"]], ["g", ["-∞", "-Infinity"]], ["h", "word"]]  # fmt: skip
    states = run([["name", ""], ["value", "number"]], rows, *[("click", 1)] * 3)
    assert ["".join(state["shown"]) for state in states] == ["gedafcbh", "cafdegbh", "abcdefgh"]
    assert [state["sorted"][1] for state in states] == ["ascending", "descending", "none"]


@needs_node
def test_shares_written_as_text_are_numbers_and_other_text_is_sorted_by_words_and_numbers_in_it():
    rows = [["row 10", "-5 %"], ["row 9", "30 %"], ["Ärger", "–"], ["zebra", "4 %"], ["apple", "-20 %"]]
    names, shares = run([["name", ""], ["left", ""]], rows, ("click", 0), ("click", 1))
    assert names["shown"] == ["apple", "Ärger", "row 9", "row 10", "zebra"]
    assert shares["shown"] == ["apple", "row 10", "zebra", "row 9", "Ärger"]
    assert shares["sorted"] == ["none", "ascending"]


@needs_node
def test_a_search_keeps_rows_with_every_word_and_says_how_many():
    rows = [[f"row {number}", "Cat" if number % 2 else "dog <b>"] for number in range(50)]
    first, cats, two_words, no_match, no_search = run(
        [["name", ""], ["class", ""]], rows, ("click", 0), ("search", "cat"), ("search", " CAT 11 "),
        ("search", "cat dog"), ("search", ""), tall=True,
    )  # fmt: skip
    assert first["beside"][1] == "Search the rows  50 of 50 rows shown"
    assert len(cats["shown"]) == 25 and "25 of 50 rows shown" in cats["beside"][1]
    assert two_words["shown"] == ["row 11"] and "1 of 50 rows shown" in two_words["beside"][1]
    assert no_match["shown"] == [] and len(no_search["shown"]) == 50


@needs_node
def test_the_hint_at_more_columns_stands_only_where_the_table_overflows():
    states = run([["a", ""]], [["x"]], ("width", 100), ("width", 300), ("width", 101))
    assert [bool(state["beside"][0]) for state in states] == [False, True, False]
    assert states[0]["sorted"] == [None]  # one row has no order


def test_the_script_is_small_and_reads_no_text_as_code_or_markup():
    assert len(script.TABLES.splitlines()) < 150
    for forbidden in ("eval", "Function", "innerHTML", "outerHTML", "insertAdjacent", "document.write", "fetch", "http",
                      "import", "</", "<!--", "localStorage"):  # fmt: skip
        assert forbidden not in script.TABLES
