// The picture: points and ellipses of two columns, or densities of one. Drawn anew when anything changes.

import { pointed, scale, ticks } from "./axes.js";
import { svg } from "./dom.js";
import { colour, counted, short } from "./words.js";

const MARGIN = { left: 58, right: 14, top: 10, bottom: 46 };
const CLIP = "plot-area";

/**
 * Draw into an element.
 *
 * asked: [{cells, component, isLast}]; point: called with {column: value} where someone has pointed.
 */
export function draw(where, facts, asked, point) {
  const { picture, columns } = facts;
  const width = Math.max(where.clientWidth, 240);
  const height = Math.round(Math.min(Math.max(width * 0.68, 260), 480));
  const area = { left: MARGIN.left, right: width - MARGIN.right, top: MARGIN.top, bottom: height - MARGIN.bottom };
  const across = columns[picture.x];
  const isPair = picture.y !== null;
  const [lowX, highX] = xRange(across, picture);
  const x = scale(lowX, highX, area.left, area.right);
  const [lowY, highY] = isPair ? picture.ranges[1] : [0, 1.06 * mostOf(across, picture)];
  const y = scale(lowY, highY, area.bottom, area.top);
  const kindOfHeight = across.kind === "number" ? "density" : "probability";
  const drawing = svg(
    "svg",
    { viewBox: `0 0 ${width} ${height}`, height, role: "img", "aria-label": described(facts) },
    svg("defs", {}, svg("clipPath", { id: CLIP }, svg("rect", box(area)))),
    ...grid(x, y, area, across, isPair ? columns[picture.y].name : kindOfHeight),
  );
  const inside = svg("g", { "clip-path": `url(#${CLIP})` });
  inside.append(...(isPair ? pair(picture, x, y) : across.kind === "number" ? curves(picture, x, y) : bars(picture, x, y)));
  inside.append(...asked.flatMap((one) => mark(one, picture, across, x, y, area)));
  drawing.append(inside);
  drawing.addEventListener("click", (event) => {
    const at = drawing.getBoundingClientRect();
    const valueX = x.back(event.clientX - at.left);
    const valueY = y.back(event.clientY - at.top);
    if (valueX < lowX || valueX > highX || valueY < lowY || valueY > highY) return;
    const found = { [picture.x]: cellAt(valueX, x, across) };
    if (isPair) found[picture.y] = cellAt(valueY, y, columns[picture.y]);
    point(found);
  });
  where.replaceChildren(drawing);
}

const box = (area) => ({ x: area.left, y: area.top, width: area.right - area.left, height: area.bottom - area.top });

function xRange(across, picture) {
  if (across.kind === "number" || picture.y !== null) return picture.ranges[0];
  const half = 0.5 * stepOf(picture.grid);
  return [picture.ranges[0][0] - half, picture.ranges[0][1] + half];
}

const stepOf = (grid) => (grid.length > 1 ? grid[1] - grid[0] : 1);

const sums = (picture) => picture.grid.map((_, i) => picture.densities.reduce((total, own) => total + own[i], 0));

function mostOf(across, picture) {
  const total = sums(picture);
  return Math.max(...total) || 1;
}

function cellAt(value, axis, column) {
  if (column.categories) return column.categories[Math.min(Math.max(Math.round(value), 0), column.categories.length - 1)];
  return pointed(value, axis, column.kind === "count");
}

function grid(x, y, area, across, nameY) {
  const found = [];
  const text = (words, attributes) => found.push(svg("text", attributes, words));
  const line = (x1, y1, x2, y2, kind) => found.push(svg("line", { x1, y1, x2, y2, class: kind }));
  const marks = across.categories
    ? across.categories.map((category, code) => [code, shortened(String(category), 14)])
    : ticks(x.low, x.high, (area.right - area.left) / 90).map((value) => [value, short(value)]);
  const every = Math.ceil(marks.length / Math.max((area.right - area.left) / 60, 1));
  for (const [value, words] of marks.filter((_, i) => i % every === 0)) {
    if (!across.categories) line(x(value), area.top, x(value), area.bottom, "grid");
    text(words, { x: x(value), y: area.bottom + 17, "text-anchor": "middle" });
  }
  for (const value of ticks(y.low, y.high, (area.bottom - area.top) / 60)) {
    line(area.left, y(value), area.right, y(value), "grid");
    text(short(value), { x: area.left - 7, y: y(value) + 4, "text-anchor": "end" });
  }
  line(area.left, area.bottom, area.right, area.bottom, "frame");
  line(area.left, area.top, area.left, area.bottom, "frame");
  const middle = (area.left + area.right) / 2;
  const centre = (area.top + area.bottom) / 2;
  text(shortened(across.name, 50), { x: middle, y: area.bottom + 37, "text-anchor": "middle", class: "axis-name" });
  const turned = `rotate(-90 13 ${centre})`;
  text(shortened(nameY, 36), { x: 13, y: centre, "text-anchor": "middle", transform: turned, class: "axis-name" });
  return found;
}

export const shortened = (text, most) => (text.length <= most ? text : `${text.slice(0, most - 1)}…`);

function pair(picture, x, y) {
  const found = picture.points.map(([a, b], i) =>
    svg("circle", { cx: x(a), cy: y(b), r: 3, fill: colour(picture.components[i]), "fill-opacity": 0.55 }),
  );
  const [likely, ...draws] = picture.shapes;
  for (const shapes of draws) {
    shapes.forEach((shape, k) => {
      if (picture.is_normal) found.push(outline(shape, 2, x, y, { stroke: colour(k), "stroke-opacity": 0.18 }));
    });
  }
  likely.forEach((shape, k) => {
    const stroke = colour(k);
    if (!shape.mean.every(Number.isFinite)) return;
    if (picture.is_normal) {
      found.push(outline(shape, 1, x, y, { stroke, fill: stroke, "fill-opacity": 0.1, "stroke-width": 1.6 }));
      found.push(outline(shape, 2, x, y, { stroke, "stroke-width": 1.6 }));
    } else found.push(...cross(shape, x, y, stroke));
    found.push(svg("circle", { cx: x(shape.mean[0]), cy: y(shape.mean[1]), r: 4, fill: stroke, stroke: "white" }));
  });
  return found;
}

/** So many standard deviations around a mean. */
function outline({ mean, covariance }, deviations, x, y, attributes) {
  const [[a, b], [, d]] = covariance;
  const along = Math.sqrt(a);
  const slope = b / along;
  const rest = Math.sqrt(Math.max(d - slope * slope, 0));
  const steps = [];
  for (let i = 0; i < 72; i += 1) {
    const [c, s] = [Math.cos((i * Math.PI) / 36), Math.sin((i * Math.PI) / 36)];
    const at = [mean[0] + deviations * along * c, mean[1] + deviations * (slope * c + rest * s)];
    steps.push(`${x(at[0]).toFixed(1)} ${y(at[1]).toFixed(1)}`);
  }
  return svg("path", { d: `M${steps.join("L")}Z`, fill: "none", ...attributes });
}

/** A mean, and one standard deviation to each side. */
function cross({ mean, covariance }, x, y, stroke) {
  const found = [];
  const [wide, high] = [covariance[0][0], covariance[1][1]];
  const line = (x1, y1, x2, y2) => found.push(svg("line", { x1, y1, x2, y2, stroke, "stroke-width": 2 }));
  if (wide !== null) line(x(mean[0] - Math.sqrt(wide)), y(mean[1]), x(mean[0] + Math.sqrt(wide)), y(mean[1]));
  if (high !== null) line(x(mean[0]), y(mean[1] - Math.sqrt(high)), x(mean[0]), y(mean[1] + Math.sqrt(high)));
  return found;
}

function curves(picture, x, y) {
  const path = (values) => values.map((value, i) => `${x(picture.grid[i]).toFixed(1)} ${y(value).toFixed(1)}`).join("L");
  const found = picture.densities.map((own, k) => {
    const [first, last] = [x(picture.grid[0]), x(picture.grid[picture.grid.length - 1])];
    const d = `M${first} ${y(0)}L${path(own)}L${last} ${y(0)}`;
    return svg("path", { d, fill: colour(k), "fill-opacity": 0.15, stroke: colour(k), "stroke-width": 1.8 });
  });
  found.push(svg("path", { d: `M${path(sums(picture))}`, fill: "none", stroke: "#1f2937", "stroke-width": 1.4 }));
  picture.points.forEach(([value], i) => {
    const at = { x1: x(value), x2: x(value), y1: y(0), y2: y(0) - 9 };
    found.push(svg("line", { ...at, stroke: colour(picture.components[i]), "stroke-opacity": 0.6 }));
  });
  return found;
}

function bars(picture, x, y) {
  const half = 0.38 * stepOf(picture.grid);
  return picture.grid.flatMap((value, i) => {
    let below = 0;
    return picture.densities.map((own, k) => {
      const at = { x: x(value - half), width: x(value + half) - x(value - half) };
      const tall = { y: y(below + own[i]), height: y(below) - y(below + own[i]) };
      below += own[i];
      return svg("rect", { ...at, ...tall, fill: colour(k), "fill-opacity": 0.75 });
    });
  });
}

/** A point that was asked about, as far as its cells are in the picture. */
function mark({ cells, component, isLast }, picture, across, x, y, area) {
  const number = across.categories ? across.categories.indexOf(cells[picture.x]) : cells[picture.x];
  const other = picture.y === null ? 0 : cells[picture.y];
  const thereX = cells[picture.x] !== null;
  const style = { stroke: "white", "stroke-width": 1.5, fill: colour(component) };
  const guide = { stroke: "#1f2937", "stroke-width": 1, "stroke-dasharray": "4 3" };
  const found = [];
  if (picture.y === null) {
    if (thereX && isLast) found.push(svg("line", { x1: x(number), x2: x(number), y1: area.top, y2: area.bottom, ...guide }));
    if (thereX) found.push(diamond(x(number), area.bottom - 9, isLast ? 8 : 6, style));
  } else if (thereX && other !== null) found.push(diamond(x(number), y(other), isLast ? 9 : 6, style));
  else if (thereX && isLast) found.push(svg("line", { x1: x(number), x2: x(number), y1: area.top, y2: area.bottom, ...guide }));
  else if (other !== null && isLast) found.push(svg("line", { x1: area.left, x2: area.right, y1: y(other), y2: y(other), ...guide }));
  return found;
}

const diamond = (x, y, size, style) =>
  svg("path", { d: `M${x} ${y - size}L${x + size} ${y}L${x} ${y + size}L${x - size} ${y}Z`, ...style, class: "asked" });

function described({ picture, columns, weights, is_series }) {
  const word = is_series ? "state" : "component";
  const names = [picture.x, picture.y].filter((j) => j !== null).map((j) => columns[j].name);
  return `${counted(weights.length, word)} along ${names.join(" and ")}, with ${picture.points.length} points of the table.`;
}
