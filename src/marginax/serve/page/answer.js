// What the service has said: bars for one row, a table of many.

import { html, svg } from "./dom.js";
import { shortened } from "./plot.js";
import { colour, largest, percent, short } from "./words.js";

export const chip = (component) => {
  const found = html("span", { class: "chip", "aria-hidden": "true" });
  found.style.background = colour(component);
  return found;
};

/** One row's answer from what the service says of several. */
export function pick(said, i) {
  return {
    probabilities: said.probabilities[i],
    std: said.std === null ? null : said.std[i],
    logDensity: said.log_density[i],
    component: largest(said.probabilities[i]),
  };
}

/** In words and bars. */
export function shown(one, word) {
  const { probabilities, std, component } = one;
  const sure = std === null ? "" : `, give or take ${percent(std[component])} over the posterior`;
  const missing = one.cells.filter((cell) => cell === null).length;
  const said = html(
    "p",
    {},
    chip(component),
    html("strong", {}, `${word} ${component}`),
    `, with probability ${percent(probabilities[component])}${sure}.`,
  );
  const bars = html("div", { class: "bars" });
  probabilities.forEach((probability, k) => {
    const spread = std === null ? "" : ` ± ${percent(std[k]).replace("< ", "<")}`;
    bars.append(
      html("span", {}, chip(k), String(k)),
      bar(probability, std === null ? null : std[k], colour(k)),
      html("span", { class: "number" }, `${percent(probability)}${spread}`),
    );
  });
  const cells = missing === 1 ? "One missing cell is summed out. " : missing ? `${missing} missing cells are summed out. ` : "";
  return [said, bars, html("p", { class: "quiet" }, `${cells}Log density ${short(one.logDensity)}.`)];
}

function bar(probability, std, fill) {
  const percentage = (value) => `${(100 * Math.min(Math.max(value, 0), 1)).toFixed(2)}%`;
  const found = svg("svg", { class: "bar", "aria-hidden": "true" });
  found.append(svg("rect", { x: 0, y: 2, width: "100%", height: 12, rx: 3, fill: "#eef0f3" }));
  found.append(svg("rect", { x: 0, y: 2, width: percentage(probability), height: 12, rx: 3, fill, "fill-opacity": 0.8 }));
  if (std !== null) {
    const [low, high] = [percentage(probability - std), percentage(probability + std)];
    const ink = { stroke: "#1f2937", "stroke-width": 1.5 };
    found.append(svg("line", { x1: low, x2: high, y1: 8, y2: 8, ...ink }));
    for (const end of [low, high]) found.append(svg("line", { x1: end, x2: end, y1: 4, y2: 12, ...ink }));
  }
  return found;
}

/** All probabilities of a row in one bar. */
function share(probabilities) {
  const found = svg("svg", { class: "share", "aria-hidden": "true" });
  let from = 0;
  probabilities.forEach((probability, k) => {
    const at = { x: `${(100 * from).toFixed(2)}%`, width: `${(100 * probability).toFixed(2)}%` };
    found.append(svg("rect", { ...at, y: 1, height: 10, fill: colour(k), "fill-opacity": 0.8 }));
    from += probability;
  });
  return found;
}

/** A table of rows with their answers; lines: [{number, cells, ...pick}]. */
export function tabled(where, names, lines, word, last = null) {
  const head = [" ", ...names.map((name) => shortened(name, 24)), word, "probability", ""];
  const body = lines.map((line) => {
    const cells = line.cells.map((cell) =>
      cell === null ? html("td", { class: "missing" }, "missing") : html("td", {}, shortened(short(cell, 6), 24)),
    );
    return html(
      "tr",
      line === last ? { class: "last" } : {},
      html("td", { class: "missing" }, String(line.number)),
      ...cells,
      html("td", {}, chip(line.component), String(line.component)),
      html("td", {}, percent(line.probabilities[line.component])),
      html("td", {}, share(line.probabilities)),
    );
  });
  where.replaceChildren(
    html("thead", {}, html("tr", {}, ...head.map((name) => html("th", { scope: "col" }, name)))),
    html("tbody", {}, ...body),
  );
}
