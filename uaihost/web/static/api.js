// The page's words with the host. Its key came behind the # of the link, and is kept by this browser for this
// port alone; together with the cookie it opens the API.

const PLACE = "uaihost-key";

export class Locked extends Error {}

function remembered() {
  const given = /^#key=([0-9a-f]{64})$/.exec(location.hash);
  try {
    if (given) localStorage.setItem(PLACE, given[1]);
    return given?.[1] ?? localStorage.getItem(PLACE) ?? "";
  } catch {
    return given?.[1] ?? "";
  } finally {
    if (given) history.replaceState(null, "", "/");
  }
}

const key = remembered();

async function ask(path, options = {}) {
  const answer = await fetch(path, {
    ...options,
    headers: { "X-Uaihost-Key": key, ...options.headers },
    cache: "no-store",
    redirect: "error",
  });
  if (answer.ok) return answer;
  const said = await answer.json().catch(() => ({}));
  const words = said.error?.message ?? `the host answered ${answer.status}`;
  throw answer.status === 401 ? new Locked(words) : new Error(words);
}

export const look = async (path) => (await ask(path)).json();

export async function verb(name, words) {
  const body = JSON.stringify(words);
  const headers = { "Content-Type": "application/json" };
  return (await ask(`/api/verbs/${name}`, { method: "POST", body, headers })).json();
}

// Calls `heard(number, record)` for each record of the log, until the signal; the end of the stream is an error.
export async function follow(words, signal, heard) {
  const answer = await ask(`/api/log?${new URLSearchParams(words)}`, { signal });
  const reader = answer.body.pipeThrough(new TextDecoderStream()).getReader();
  let rest = "";
  for (;;) {
    const { value, done } = await reader.read();
    if (done) throw new Error("the log ended");
    const events = (rest + value).split("\n\n");
    rest = events.pop();
    for (const event of events) {
      const found = /^id: (\d+)\ndata: (.*)$/s.exec(event);
      if (found) heard(Number(found[1]), JSON.parse(found[2]));
    }
  }
}
