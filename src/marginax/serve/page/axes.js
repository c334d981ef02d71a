// Scales and ticks.

/** Round numbers between two ends, about so many. */
export function ticks(low, high, about) {
  const rough = (high - low) / Math.max(about, 1);
  if (!(rough > 0) || !Number.isFinite(rough)) return [low];
  const power = 10 ** Math.floor(Math.log10(rough));
  const step = [1, 2, 5, 10].find((one) => one * power >= rough) * power;
  const found = [];
  for (let at = Math.ceil(low / step); at <= high / step + 1e-9 && found.length < 50; at += 1) {
    found.push(Number((at * step).toPrecision(12)));
  }
  return found;
}

/** From values to pixels, and back. */
export function scale(low, high, from, to) {
  const width = high - low || 1;
  const forth = (value) => from + ((value - low) / width) * (to - from);
  forth.back = (pixel) => low + ((pixel - from) / (to - from)) * width;
  forth.low = low;
  forth.high = high;
  return forth;
}

/** A value where someone has pointed, with no more digits than the picture can show. */
export function pointed(value, axis, isWhole) {
  if (isWhole) return Math.round(value);
  const digits = Math.max(0, 2 - Math.floor(Math.log10(axis.high - axis.low || 1)));
  return Number(value.toFixed(Math.min(digits, 20)));
}
