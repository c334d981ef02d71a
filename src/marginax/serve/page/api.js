// Asking the service. What it refuses becomes an error with its faults: {field, msg, row, column}.

export class Refused extends Error {
  constructor(faults) {
    super(faults.map((fault) => `${fault.field}: ${fault.msg}`).join(" "));
    this.faults = faults;
  }
}

async function answer(path, options) {
  let response;
  try {
    response = await fetch(path, options);
  } catch {
    throw new Refused([{ field: "service", msg: "it does not answer; is it still running?" }]);
  }
  let body = null;
  try {
    body = await response.json();
  } catch {
    throw new Refused([{ field: "service", msg: `it answered with status ${response.status}, and no words.` }]);
  }
  if (!response.ok) throw new Refused(Array.isArray(body.detail) ? body.detail : [{ field: "service", msg: "no." }]);
  return body;
}

/** What is served, and a picture along one column or two; without numbers those that the service thinks best. */
export function model(x = null, y = null) {
  const asked = [x === null ? "" : `x=${x}`, y === null ? "" : `y=${y}`].filter(Boolean).join("&");
  return answer(`/model${asked ? "?" : ""}${asked}`);
}

/** Of rows of cells: probabilities, std, log_density. */
export function probabilities(rows) {
  const headers = { "content-type": "application/json" };
  return answer("/predict_proba", { method: "POST", headers, body: JSON.stringify({ rows }) });
}
