// The page: what is served, a picture of it, and points to ask about.

import { chip, pick, shown, tabled } from "./answer.js";
import { model, probabilities } from "./api.js";
import { byId, html, tell } from "./dom.js";
import { listen } from "./file.js";
import { Form } from "./form.js";
import { draw } from "./plot.js";
import { counted, percent } from "./words.js";

const MOST_ASKED = 50;

let facts = null;
let form = null;
let asked = []; // [{number, cells, probabilities, std, logDensity, component}], of a series all its steps

const word = () => (facts.is_series ? "state" : "component");

function introduce() {
  const draws = facts.draws > 1 ? `, with a posterior of ${counted(facts.draws, "draw")}` : "";
  const kind = facts.is_series
    ? `A hidden Markov model with ${counted(facts.weights.length, "state")}`
    : `A mixture of ${counted(facts.weights.length, "component")}`;
  byId("name").textContent = facts.name;
  document.title = `${facts.name} – Marginax`;
  byId("about").textContent =
    `${kind} in ${counted(facts.columns.length, "column")}, fitted to ${counted(facts.rows, "row")}${draws}.`;
  if (facts.is_series) {
    byId("mixture-title").textContent = "The states";
    byId("ask-title").textContent = "Which state is a step in?";
    byId("ask").textContent = "Add step";
    byId("clear").textContent = "Start over";
    byId("asked-title").textContent = "Steps so far";
  }
  byId("ask-about").textContent = facts.is_series
    ? "Rows are steps of one series: each that you add tells more about those before it. Leave a field empty where its cell is missing."
    : "Fill in what you know, or click into the picture. A field that is left empty is missing, and summed out.";
}

// -- the picture

function choices() {
  const { picture, columns } = facts;
  const option = (value, text, chosen) => html("option", { value, selected: value === chosen }, text);
  byId("across").replaceChildren(...columns.map((column, j) => option(j, column.name, picture.x)));
  const numbers = columns.map((column, j) => [column, j]).filter(([column, j]) => !column.categories && j !== picture.x);
  byId("up").replaceChildren(
    option("", columns[picture.x].kind === "number" ? "its density" : "its probability", picture.y ?? ""),
    ...(columns[picture.x].categories ? [] : numbers).map(([column, j]) => option(j, column.name, picture.y ?? "")),
  );
}

function legend() {
  const items = facts.weights.map((weight, k) => html("li", {}, chip(k), `${word()} ${k}, ${percent(weight)}`));
  byId("legend").replaceChildren(...items);
  const { picture, columns } = facts;
  const points = picture.points.length
    ? `${picture.y === null ? "Ticks" : "Dots"} are ${counted(picture.points.length, "row")} of the table. `
    : "The file holds no rows to show. ";
  const shapes = picture.is_normal
    ? "Ellipses are 1 and 2 standard deviations around the means. " +
      (picture.shapes?.length > 1 ? `Thin lines are ${picture.shapes.length - 1} draws of the posterior. ` : "")
    : "Crosses are means and one standard deviation. ";
  const isCurve = columns[picture.x].kind === "number";
  const densities =
    (isCurve ? `The coloured curves are the ${word()}s, the dark one is their sum` : `Each bar is the sum of the ${word()}s`) +
    (facts.draws > 1 ? ", at the most probable parameters." : ".");
  byId("caption").textContent = picture.y === null ? (isCurve ? points : "") + densities : points + shapes;
}

const redraw = () => {
  const last = asked[asked.length - 1];
  draw(byId("plot"), facts, asked.map((one) => ({ ...one, isLast: one === last })), (values) => {
    form.set(values);
    if (!facts.is_series) ask();
  });
};

async function choose() {
  const x = Number(byId("across").value);
  const up = byId("up").value;
  const y = up === "" || Number(up) === x || facts.columns[x].categories ? null : Number(up);
  try {
    facts = await model(x, y);
    tell(byId("failure"), "");
    showPicture();
  } catch (error) {
    tell(byId("failure"), error.message);
  }
}

function showPicture() {
  choices();
  legend();
  redraw();
}

// -- asking

let waiting = false;

async function ask() {
  if (waiting) return;
  tell(byId("problem"), "");
  byId("answer").replaceChildren();
  const cells = form.cells();
  if (cells === null) return;
  waiting = true;
  byId("ask").disabled = true;
  try {
    const before = facts.is_series ? asked : [];
    const said = await probabilities([...before.map((one) => one.cells), cells]);
    const number = asked.length ? asked[asked.length - 1].number + 1 : 1;
    const now = [...before, { cells, number }].map((one, i) => ({ ...one, ...pick(said, i) }));
    asked = facts.is_series ? now : [...asked, ...now].slice(-MOST_ASKED);
    showAnswer();
  } catch (error) {
    refuse(error, facts.is_series ? asked.length : 0);
  } finally {
    waiting = false;
    byId("ask").disabled = false;
  }
}

/** What the service says is wrong, beside the field where there is one. */
function refuse(error, row) {
  const others = [];
  for (const fault of error.faults ?? [{ field: "page", msg: error.message }]) {
    const j = facts.columns.findIndex((column) => column.name === fault.column);
    if (j >= 0 && fault.row === row) form.blame(j, fault.msg);
    else others.push(fault.row === row ? fault.msg : `${fault.field}: ${fault.msg}`);
  }
  tell(byId("problem"), others.join(" "));
}

function showAnswer() {
  const last = asked[asked.length - 1];
  byId("answer").replaceChildren(...(last ? shown(last, facts.is_series ? "State" : "Component") : []));
  byId("asked-section").hidden = asked.length === 0;
  const lines = facts.is_series ? asked : [...asked].reverse();
  tabled(byId("asked"), facts.columns.map((column) => column.name), lines, word(), last);
  redraw();
}

function clear() {
  form.clear();
  tell(byId("problem"), "");
  if (facts.is_series) asked = [];
  byId("answer").replaceChildren();
  if (facts.is_series) showAnswer();
}

// -- begin

async function begin() {
  try {
    facts = await model();
  } catch (error) {
    byId("about").textContent = "";
    tell(byId("failure"), error.message);
    return;
  }
  introduce();
  form = new Form(byId("fields"), facts.columns);
  byId("main").hidden = false;
  byId("across").addEventListener("change", choose);
  byId("up").addEventListener("change", choose);
  byId("form").addEventListener("submit", (event) => {
    event.preventDefault();
    ask();
  });
  byId("clear").addEventListener("click", clear);
  listen(facts);
  showPicture();
  let width = 0;
  new ResizeObserver(([{ contentRect }]) => {
    if (Math.abs(contentRect.width - width) > 1) redraw();
    width = contentRect.width;
  }).observe(byId("plot"));
}

begin();
