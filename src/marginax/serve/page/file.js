// A file of rows: read here, asked about in parts, its answers shown and given back as a file.

import { chip, pick, tabled } from "./answer.js";
import { probabilities, Refused } from "./api.js";
import { write } from "./csv.js";
import { byId, html, tell } from "./dom.js";
import { rowsOf } from "./rows.js";
import { counted, percent } from "./words.js";

const MOST_BYTES = 50_000_000;
const PART = 1000;
const SHOWN = 100;

export function listen(facts) {
  const drop = byId("drop");
  const input = byId("file");
  const word = facts.is_series ? "steps of one series, in order" : "rows";
  byId("file-about").textContent =
    `A table of ${word}, with or without a header; its columns are found by their names, or taken in order. A cell ` +
    `that is empty, or says NA, N/A, NaN, null, None, ?, - or . alone, is missing, and summed out.` +
    (facts.is_series ? ` A series may have ${facts.limits.rows.toLocaleString("en")} steps.` : "");
  input.addEventListener("change", () => {
    if (input.files.length) take(input.files[0], facts);
    input.value = ""; // so that the same file can be chosen again
  });
  for (const kind of ["dragenter", "dragover"]) {
    drop.addEventListener(kind, (event) => {
      event.preventDefault();
      drop.classList.add("over");
    });
  }
  for (const kind of ["dragleave", "drop"]) drop.addEventListener(kind, () => drop.classList.remove("over"));
  drop.addEventListener("drop", (event) => {
    event.preventDefault();
    if (event.dataTransfer.files.length) take(event.dataTransfer.files[0], facts);
  });
}

let latest = 0; // of the files that were given; what belongs to an earlier one is dropped

async function take(file, facts) {
  latest += 1;
  const mine = latest;
  const problem = byId("file-problem");
  const where = byId("file-answer");
  tell(problem, "");
  const progress = html("progress", { max: 1, value: 0, "aria-label": "answered so far" });
  where.replaceChildren(html("p", { class: "quiet" }, `Asking about ${file.name}.`), progress);
  try {
    if (file.size > MOST_BYTES) throw new Error("the file is larger than 50 MB; cut it up, or use the command line.");
    const table = rowsOf(await file.text(), facts.columns, facts.is_series);
    const answers = await askAll(table, facts, (share) => {
      progress.value = share;
      return mine === latest;
    });
    if (mine === latest) show(where, file.name, table, answers, facts);
  } catch (error) {
    if (mine !== latest) return;
    where.replaceChildren();
    tell(problem, `${file.name}: ${error.message}`);
  }
}

/** Answers for all rows; `go` is told how far it is, and says whether to go on. */
async function askAll({ rows, lines }, facts, go) {
  const part = facts.is_series ? rows.length : Math.min(PART, facts.limits.rows);
  if (part > facts.limits.rows) {
    throw new Error(`it has ${counted(part, "step")}, and ${facts.limits.rows.toLocaleString("en")} at most are taken.`);
  }
  const found = [];
  for (let first = 0; first < rows.length; first += part) {
    if (!go(first / rows.length)) return found;
    const asked = rows.slice(first, first + part);
    let said;
    try {
      said = await probabilities(asked);
    } catch (error) {
      if (error instanceof Refused) throw new Error(inLines(error.faults[0], first, lines));
      throw error;
    }
    asked.forEach((_, i) => found.push(pick(said, i)));
  }
  return found;
}

/** What the service says of a row, by the line of the file. */
function inLines(fault, first, lines) {
  if (fault.row === undefined || fault.row === null) return `${fault.field}: ${fault.msg}`;
  const column = fault.column ? `, column “${fault.column}”` : "";
  return `line ${lines[first + fault.row].number}${column}: ${fault.msg}`;
}

function show(where, name, table, answers, facts) {
  const word = facts.is_series ? "state" : "component";
  const counts = facts.weights.map((_, k) => answers.filter((one) => one.component === k).length);
  const rows = answers.map((one, i) => ({ ...one, number: table.lines[i].number, cells: table.rows[i] }));
  const shown = rows.slice(0, SHOWN);
  const summary = counts.map((count, k) =>
    html("li", {}, chip(k), `${word} ${k}: ${count.toLocaleString("en")} (${percent(count / rows.length)})`),
  );
  const listing = html("table", { id: "file-table" });
  tabled(listing, facts.columns.map((column) => column.name), shown, word);
  const more = rows.length > SHOWN ? `The first ${SHOWN} of ${counted(rows.length, "row")}; all are in the file.` : "";
  const save = html("button", { type: "button", onclick: () => download(name, table, answers, word) }, "Download as CSV");
  where.replaceChildren(
    html("p", { role: "status" }, `${name}: ${counted(rows.length, "row")}. ${table.remarks.join(" ")}`),
    html("ul", { class: "legend" }, ...summary),
    html("div", { class: "buttons" }, save),
    html("p", { class: "quiet" }, more),
    html("div", { class: "wide", tabindex: 0 }, listing),
  );
}

function download(name, table, answers, word) {
  const numbers = answers[0].probabilities.map((_, k) => k);
  const hasStd = answers[0].std !== null;
  const head = [
    ...table.header,
    word,
    ...numbers.map((k) => `probability_${k}`),
    ...(hasStd ? numbers.map((k) => `std_${k}`) : []),
    "log_density",
  ];
  const lines = answers.map((one, i) => [
    ...table.lines[i].cells,
    one.component,
    ...one.probabilities,
    ...(hasStd ? one.std : []),
    one.logDensity,
  ]);
  const address = URL.createObjectURL(new Blob([write([head, ...lines])], { type: "text/csv" }));
  const link = html("a", { href: address, download: `${name.replace(/\.[^.]*$/, "")}-answers.csv` });
  document.body.append(link);
  link.click();
  link.remove();
  setTimeout(() => URL.revokeObjectURL(address), 1000);
}
