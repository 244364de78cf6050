// What the clients of a benchmark do, whatever carries their bytes.
//
// `link` carries them: open(name, method, url, headers, upgrade, data, whole) gives a tunnel with `acked`,
// `closed`, `write(data)`, `end()` and `stop()`; wire() is the number of bytes that came over the host's
// socket. command() and ping() are a command's and a WebSocket ping's round trip, where there is a host to
// answer; `lost` settles when the host's connection ends, losses() counts that. Times are milliseconds unless
// they say seconds.

import { randomFillSync } from "node:crypto";
import { performance } from "node:perf_hooks";

const HEADERS = [["Host", "web.preview.example"], ["Accept", "*/*"]];
const UPGRADE = [...HEADERS, ["Connection", "Upgrade"], ["Upgrade", "echo"]];

// Tunnels opened at once where many are opened.
const BATCH = 50;

const PIECE = 64 << 10;

const since = (began) => (performance.now() - began) / 1000;

const pause = (seconds) => new Promise((done) => setTimeout(done, seconds * 1000));

// Asks every `interval` ms for `seconds`, by the clock and not by the answers: a stall delays every question
// behind it, each is timed from the moment it was due, and one that is never answered counts with the time
// it has waited, at most `grace` ms after the last. `ask(number)` returns a promise. Resolves with the times.
function probe(interval, seconds, grace, lost, ask) {
  const first = performance.now() + interval;
  const total = Math.floor((seconds * 1000) / interval);
  const times = new Array(total).fill(null);
  let asked = 0;
  let answered = 0;
  return new Promise((done) => {
    const finish = () => {
      clearInterval(timer);
      const now = performance.now();
      done(times.slice(0, asked).map((time, number) => time ?? now - first - number * interval));
    };
    const answer = (number) => {
      times[number] = performance.now() - first - number * interval;
      answered += 1;
      if (answered === total) finish();
    };
    const turn = () => {
      for (; asked < total && performance.now() >= first + asked * interval; asked += 1) {
        const number = asked;
        ask(number).then(() => answer(number), () => {});
      }
      if (performance.now() > first + seconds * 1000 + grace) finish();
    };
    const timer = setInterval(turn, 1);
    lost.then(finish);
  });
}

export function measures(link) {
  const held = [];

  async function get(name, url, data) {
    const tunnel = link.open(name, "GET", url, HEADERS, false, data, true);
    await tunnel.acked;
    await tunnel.closed;
  }

  // Downloads of one address, one after the other, until it is stopped. `bytes` came; `cut` downloads ended
  // before their end while nobody had stopped them.
  function load(name, url) {
    const loading = { bytes: 0, cut: 0, running: true };
    const run = async () => {
      while (loading.running) {
        let came = 0;
        const count = (data) => {
          came += data.length;
          loading.bytes += data.length;
        };
        loading.tunnel = link.open(name, "GET", url, HEADERS, false, count, true);
        const whole = await loading.tunnel.acked.then(length, () => Infinity);
        if (whole < Infinity) await loading.tunnel.closed;
        if (came < whole && loading.running) {
          loading.cut += 1;
          await pause(0.1);
        }
      }
    };
    loading.stop = () => {
      loading.running = false;
      loading.tunnel.stop();
    };
    loading.over = run();
    return loading;
  }

  // A raw tunnel to an echo; `ask()` sends `size` bytes and settles when they are back.
  async function echoing(name, url, size) {
    const message = Buffer.alloc(size, "x");
    const waiting = [];
    let got = 0;
    const tunnel = link.open(name, "GET", url, UPGRADE, true, (data) => {
      for (got += data.length; got >= size; got -= size) waiting.shift()?.();
    });
    await tunnel.acked;
    const ask = () =>
      new Promise((done) => {
        waiting.push(done);
        tunnel.write(message);
      });
    return { tunnel, ask };
  }

  return {
    ready: () => link.ready(),

    // One download after the other until `seconds` have passed, or `limit` bytes have come.
    async download({ name, url, seconds, limit = Infinity }) {
      const began = performance.now();
      const before = link.wire();
      let bytes = 0;
      while (since(began) < seconds && bytes < limit) await get(name, url, (data) => (bytes += data.length));
      return { bytes, seconds: since(began), wire: link.wire() - before };
    },

    async upload({ name, url, bytes, seconds }) {
      const piece = randomFillSync(Buffer.alloc(PIECE));
      const headers = [...HEADERS, ["Content-Length", String(bytes)]];
      const began = performance.now();
      let sent = 0;
      while (since(began) < seconds) {
        const tunnel = link.open(name, "POST", url, headers, false, () => {});
        for (let left = bytes; left > 0; left -= piece.length) {
          await tunnel.write(piece.subarray(0, Math.min(left, piece.length)));
        }
        tunnel.end();
        await tunnel.acked;
        await tunnel.closed;
        sent += bytes;
      }
      return { bytes: sent, seconds: since(began) };
    },

    async requests({ name, url, parallel, seconds }) {
      const began = performance.now();
      let count = 0;
      const client = async () => {
        for (; since(began) < seconds; count += 1) await get(name, url, () => {});
      };
      await Promise.all(Array.from({ length: parallel }, client));
      return { count, seconds: since(began) };
    },

    // Round trips of echoes every `interval` ms with `loads` downloads beside, and of commands and pings
    // every `control` ms. `drain`: wait until what the downloads left on the way is through.
    async echo({ name, url, size, interval, seconds, grace, loads, loadName, loadUrl, control, drain = true }) {
      const { tunnel, ask } = await echoing(name, url, size);
      const downloads = Array.from({ length: loads }, () => load(loadName, loadUrl));
      const began = performance.now();
      const before = downloads.reduce((sum, { bytes }) => sum + bytes, 0);
      const asked = link.command && control;
      const probing = (every, ask) => probe(every, seconds, grace, link.lost, ask);
      const [times, commands, pings] = await Promise.all([
        probing(interval, ask),
        asked ? probing(control, () => link.command("taskStatus", ["no such task"])) : [],
        asked ? probing(control, () => link.ping()) : [],
      ]);
      const loaded = downloads.reduce((sum, { bytes }) => sum + bytes, 0) - before;
      const elapsed = since(began);
      const cut = downloads.reduce((sum, load) => sum + load.cut, 0) + (link.losses?.() ?? 0);
      if (drain) {
        for (const load of downloads) load.stop();
        tunnel.stop();
        await Promise.all([tunnel.closed, link.ping?.(), ...downloads.map((load) => load.over)]);
      }
      return { times, commands, pings, loaded, cut, seconds: elapsed };
    },

    // `count` downloads at once for `seconds`: the bytes of each.
    async active({ name, url, count, seconds }) {
      const downloads = Array.from({ length: count }, () => load(name, url));
      await pause(seconds);
      const bytes = downloads.map((load) => load.bytes);
      const cut = downloads.reduce((sum, load) => sum + load.cut, 0);
      for (const load of downloads) load.stop();
      await Promise.all([link.ping?.(), ...downloads.map((load) => load.over)]);
      return { bytes, cut };
    },

    // Opens `count` raw tunnels, each of which has carried a byte there and back, and leaves them open.
    async hold({ name, url, count }) {
      while (count > 0) {
        const batch = Array.from({ length: Math.min(count, BATCH) }, async () => {
          const { tunnel, ask } = await echoing(name, url, 1);
          await ask();
          held.push(tunnel);
        });
        await Promise.all(batch);
        count -= batch.length;
      }
      return { open: held.length };
    },

    async release() {
      const tunnels = held.splice(0);
      for (const tunnel of tunnels) tunnel.stop();
      await Promise.all(tunnels.map((tunnel) => tunnel.closed));
      return { released: tunnels.length };
    },
  };
}

// The length that a response's head gives.
function length({ headers }) {
  const found = headers.find(([name]) => name.toLowerCase() === "content-length");
  return found ? Number(found[1]) : Infinity;
}
