// Numbers and colours as people read them.

// As in the report; the first eight are Okabe and Ito's, which colour-blind people can tell apart.
const COLOURS = [
  ...["#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#7a5195", "#6b6b6b"],
  ...["#c81e3a", "#6b8e00", "#8b5cf6", "#7c3f00", "#14b8a6", "#f472b6", "#b5a642", "#2f5fd0"],
];

export const colour = (component) => COLOURS[component % COLOURS.length];

/** A number with so many digits that count. */
export function short(value, digits = 4) {
  if (typeof value !== "number" || !Number.isFinite(value)) return String(value ?? "");
  if (value !== 0 && (Math.abs(value) >= 1e6 || Math.abs(value) < 1e-4)) return value.toExponential(digits - 2);
  return String(Number(value.toPrecision(digits)));
}

/** A probability; one that is not certain is not said to be. */
export function percent(value) {
  if (value > 0.9995 && value < 1) return "> 99.9%";
  if (value < 0.0005 && value > 0) return "< 0.1%";
  return `${(100 * value).toFixed(1)}%`;
}

export const counted = (number, word) => `${number.toLocaleString("en")} ${word}${number === 1 ? "" : "s"}`;

export const largest = (values) => values.indexOf(Math.max(...values));
