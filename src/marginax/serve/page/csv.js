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

/** Lines of cells, each with its number in the file; empty lines are left out. */
export function parse(given) {
  const text = given.replace(/^\ufeff/, "").replace(/\r\n?/g, "\n");
  const separator = separatorOf(text);
  const lines = [];
  let cells = [];
  let cell = "";
  let quoted = false;
  let number = 1;
  let begins = 1;
  const endLine = () => {
    cells.push(cell);
    if (cells.length > 1 || cell.trim()) lines.push({ number: begins, cells });
    cells = [];
    cell = "";
  };
  for (let at = 0; at < text.length; at += 1) {
    const character = text[at];
    if (character === "\n") number += 1;
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
  if (cell || cells.length) endLine();
  return { lines, separator };
}

/** Lines of cells as text. */
export function write(lines) {
  const quoted = (cell) => {
    const text = cell === null || cell === undefined ? "" : String(cell);
    return /[",\n\r]/.test(text) ? `"${text.replaceAll('"', '""')}"` : text;
  };
  return lines.map((line) => line.map(quoted).join(",")).join("\r\n") + "\r\n";
}
