// A cell as it is typed, or stands in a file, becomes what the service takes: a number, a category, null where it is missing.

const NUMBER = /^[-+]?(\d+\.?\d*|\.\d+)(e[-+]?\d+)?$/i;
// The same as on the command line.
const MISSING = new Set(["", "na", "n/a", "nan", "null", "none", "?", "-", "."]);

export class Unreadable extends Error {}

/** What a text says in a column. */
export function read(text, column, decimalComma = false) {
  const trimmed = text.trim();
  if (column.categories) {
    const found = column.categories.find((category) => String(category).toLowerCase() === trimmed.toLowerCase());
    const exact = column.categories.find((category) => String(category) === trimmed);
    if (exact !== undefined) return exact;
    if (found !== undefined && typeof found === "boolean") return found;
    const numeric = NUMBER.test(trimmed) && column.categories.find((category) => category === Number(trimmed));
    if (numeric !== undefined && numeric !== false) return numeric;
    if (MISSING.has(trimmed.toLowerCase())) return null;
    throw new Unreadable(`“${trimmed}” is none of its categories.`);
  }
  if (MISSING.has(trimmed.toLowerCase())) return null;
  const pointed = decimalComma ? trimmed.replace(",", ".") : trimmed;
  const number = Number(pointed);
  if (NUMBER.test(pointed) && Number.isFinite(number)) return number;
  if (/^[-+]?\d+,\d+$/.test(trimmed)) throw new Unreadable(`write ${trimmed.replace(",", ".")}, with a point.`);
  throw new Unreadable(`“${trimmed}” is not a number.`);
}
