// Tables as text: commas, semicolons or tabs between cells, quotes around them where they need it.

/** Which character stands between cells, from the first line. */
function separatorOf(text) {
  const counts = { ",": 0, ";": 0, "\t": 0 };
  let quoted = false;
  for (const character of text) {
    if (character === '"') quoted = !quoted;
    else if (!quoted && character === "\n") break;
    else if (!quoted && character in counts) counts[character] += 1;
  }
  return counts["\t"] ? "\t" : counts[";"] ? ";" : ",";
}

/**
 * Lines of cells, each with its number in the file. As on the command line, an empty line is a row with a missing cell
 * where there is one column, and no row where there are several; what is empty before the first line is left out.
 */
export function parse(given) {
  const text = given.replace(/^\ufeff/, "").replace(/\r\n?/g, "\n");
  const separator = separatorOf(text);
  const lines = [];
  let cells = [];
  let cell = "";
  let quoted = false;
  let begun = false; // whether there is anything in this line
  let number = 1;
  let begins = 1;
  const endLine = () => {
    cells.push(cell);
    lines.push({ number: begins, cells });
    cells = [];
    cell = "";
    begun = false;
  };
  for (let at = 0; at < text.length; at += 1) {
    const character = text[at];
    if (character === "\n") number += 1;
    begun = true;
    if (quoted) {
      if (character !== '"') cell += character;
      else if (text[at + 1] === '"') {
        cell += '"';
        at += 1;
      } else quoted = false;
    } else if (character === '"' && !cell.trim()) {
      quoted = true;
      cell = "";
    } else if (character === separator) {
      cells.push(cell);
      cell = "";
    } else if (character === "\n") {
      endLine();
      begins = number;
    } else cell += character;
  }
  if (quoted) throw new Error(`line ${begins}: a quote is opened and never closed.`);
  if (begun) endLine();
  const isEmpty = (line) => line.cells.length === 1 && !line.cells[0].trim();
  const first = lines.findIndex((line) => !isEmpty(line));
  const found = first < 0 ? [] : lines.slice(first);
  const one = found.length && found[0].cells.length === 1;
  return { lines: one ? found : found.filter((line) => !isEmpty(line)), separator, gap: one ? 0 : gapIn(found, isEmpty) };
}

/** The number of the first empty line that has others below it, 0 if there is none. */
function gapIn(lines, isEmpty) {
  let last = lines.length;
  while (last && isEmpty(lines[last - 1])) last -= 1;
  const gap = lines.slice(0, last).find(isEmpty);
  return gap ? gap.number : 0;
}

/** Lines of cells as text. */
export function write(lines) {
  const quoted = (cell) => {
    const text = cell === null || cell === undefined ? "" : String(cell);
    return /[",\n\r]/.test(text) ? `"${text.replaceAll('"', '""')}"` : text;
  };
  return lines.map((line) => line.map(quoted).join(",")).join("\r\n") + "\r\n";
}
