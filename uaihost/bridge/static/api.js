// The bridge's JSON API and its stream of events.

export class ApiError extends Error {
  constructor(code, message) {
    super(message);
    this.code = code;
  }
}

async function call(method, path, body) {
  let response;
  try {
    response = await fetch(path, {
      method,
      headers: body === undefined ? {} : { "Content-Type": "application/json" },
      body: body === undefined ? undefined : JSON.stringify(body),
    });
  } catch {
    throw new ApiError("offline", "The bridge does not answer. Is it still running? This page goes on when it is back.");
  }
  if (response.status === 401) {
    location.reload();
  }
  let answer = {};
  try {
    answer = await response.json();
  } catch {
    throw new ApiError("internal", `The bridge answered with status ${response.status} and no JSON.`);
  }
  if (!response.ok) {
    throw new ApiError(answer.error?.code ?? "internal", sentence(answer.error?.message ?? `Status ${response.status}`));
  }
  return answer;
}

export const get = (path) => call("GET", path);
export const post = (path, body = {}) => call("POST", path, body);

export function sentence(text) {
  const clean = text.trim();
  const end = /[.!?…]$/.test(clean) ? "" : ".";
  return clean.charAt(0).toUpperCase() + clean.slice(1) + end;
}

// Calls `on[kind](data, id)`; `on.link(state)` hears "open" and "lost".
export function listen(after, on) {
  const source = new EventSource(`/api/events?after=${after}`);
  let retry = null;
  for (const kind of ["event", "task", "hosts"]) {
    source.addEventListener(kind, (message) => on[kind](JSON.parse(message.data), Number(message.lastEventId) || 0));
  }
  source.addEventListener("open", () => on.link("open"));
  source.addEventListener("error", () => {
    on.link("lost");
    // A browser gives up after an answer that is no stream, as from a bridge that is just starting.
    if (source.readyState === EventSource.CLOSED && retry === null) retry = setTimeout(() => on.again(), 2000);
  });
  return source;
}
