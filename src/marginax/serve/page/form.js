// The form: a field for each column, and what is wrong with it beside it.

import { read } from "./cells.js";
import { html, tell } from "./dom.js";

export class Form {
  constructor(where, columns) {
    this.columns = columns;
    this.fields = columns.map((column, j) => field(column, j));
    where.replaceChildren(...this.fields.map((one) => one.row));
  }

  /** The cells, or null when one of them is wrong: then that is said beside it. */
  cells() {
    this.forgive();
    let isWrong = false;
    const found = this.columns.map((column, j) => {
      try {
        return this.fields[j].value();
      } catch (error) {
        if (!isWrong) this.fields[j].input.focus();
        isWrong = true;
        this.blame(j, error.message);
        return null;
      }
    });
    return isWrong ? null : found;
  }

  /** Fill in some cells. */
  set(values) {
    this.forgive();
    for (const [j, value] of Object.entries(values)) this.fields[j].set(value);
  }

  clear() {
    this.forgive();
    for (const one of this.fields) one.set(null);
  }

  blame(j, message) {
    this.fields[j].input.setAttribute("aria-invalid", "true");
    tell(this.fields[j].wrong, message.charAt(0).toUpperCase() + message.slice(1));
  }

  forgive() {
    for (const one of this.fields) {
      one.input.removeAttribute("aria-invalid");
      tell(one.wrong, "");
    }
  }
}

function field(column, j) {
  const id = `cell-${j}`;
  const about = { id, "aria-describedby": `wrong-${j}` };
  const wrong = html("p", { id: `wrong-${j}`, class: "wrong", role: "alert", hidden: true });
  const label = html("label", { for: id }, column.name);
  if (column.categories) {
    const options = column.categories.map((category, code) => html("option", { value: code }, String(category)));
    const input = html("select", about, html("option", { value: "" }, "(missing)"), ...options);
    const value = () => (input.value === "" ? null : column.categories[Number(input.value)]);
    const set = (cell) => {
      input.value = cell === null ? "" : String(column.categories.indexOf(cell));
    };
    return { row: html("div", { class: "field" }, label, input, wrong), input, wrong, value, set };
  }
  if (column.wants !== "numbers") label.append(html("span", { class: "hint" }, column.wants));
  const input = html("input", { ...about, type: "text", inputmode: "decimal", autocomplete: "off", placeholder: "missing" });
  const value = () => read(input.value, column);
  const set = (cell) => {
    input.value = cell === null ? "" : String(cell);
  };
  return { row: html("div", { class: "field" }, label, input, wrong), input, wrong, value, set };
}
