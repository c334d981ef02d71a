// The lines of a file become rows for the service: which of its columns are the model's, and what their cells say.

import { parse } from "./csv.js";
import { read, Unreadable } from "./cells.js";

/** For each column of the model where it is in the file, or -1; whether there is a header; remarks. */
function places(first, columns, comma) {
  const given = first.map((cell) => cell.trim());
  const named = columns.map((column) => given.indexOf(column.name));
  if (named.some((place) => place >= 0)) {
    const absent = columns.filter((_, j) => named[j] < 0).map((column) => `“${column.name}”`);
    const extra = given.filter((name) => !columns.some((column) => column.name === name)).length;
    const remarks = [];
    if (absent.length) remarks.push(`The file has no ${absent.join(", ")}: summed out in every row.`);
    if (extra) remarks.push(`Other columns of the file (${extra}) are left alone.`);
    return { where: named, hasHeader: true, remarks };
  }
  if (given.length !== columns.length) {
    const names = columns.map((column) => `“${column.name}”`).join(", ");
    throw new Unreadable(
      `its lines have ${given.length} cells, and the model has ${columns.length}: ${names}. ` +
        "Name the columns in the first line.",
    );
  }
  const isData = given.every((cell, j) => {
    try {
      read(cell, columns[j], comma);
      return true;
    } catch {
      return false;
    }
  });
  const remarks = isData ? [] : ["The first line is taken as a header with other names; columns are taken in order."];
  return { where: columns.map((_, j) => j), hasHeader: !isData, remarks };
}

/** Rows for the service, the lines they come from, the file's header, and remarks. */
export function rowsOf(text, columns, isSeries = false) {
  const { lines, separator, gap } = parse(text);
  if (!lines.length) throw new Unreadable("the file is empty.");
  if (isSeries && gap) {
    throw new Unreadable(`line ${gap} is empty, and rows are steps in time: write a missing step as empty cells.`);
  }
  const comma = separator === ";";
  const width = lines[0].cells.length;
  const { where, hasHeader, remarks } = places(lines[0].cells, columns, comma);
  const data = hasHeader ? lines.slice(1) : lines;
  if (!data.length) throw new Unreadable("there are no rows below the header.");
  const rows = data.map(({ number, cells }) => {
    if (cells.length !== width) {
      throw new Unreadable(`line ${number} has ${cells.length} cells, and the first line has ${width}.`);
    }
    return columns.map((column, j) => {
      if (where[j] < 0) return null;
      try {
        return read(cells[where[j]], column, comma);
      } catch (error) {
        throw new Unreadable(`line ${number}, column “${column.name}”: ${error.message}`);
      }
    });
  });
  const header = hasHeader ? lines[0].cells : columns.map((column) => column.name);
  return { rows, lines: data, header, remarks };
}
