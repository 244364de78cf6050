// Orders as JSON lines on standard input, {"do": name, ...}; each is answered by one line, in order.

import { createInterface } from "node:readline";

const say = (value) => process.stdout.write(JSON.stringify(value) + "\n");

// How long a measure may still take, in milliseconds, once its connection is lost.
const LOST = 10_000;

// `first` is said at once; `known` are the functions by name; `lost` settles when none of them can go on.
export function obey(known, first, lost) {
  const broken = new Promise((_, failed) =>
    lost.then(() => setTimeout(() => failed(new Error("the host's connection was lost")), LOST)),
  );
  broken.catch(() => {});
  createInterface({ input: process.stdin })
    .on("line", async (line) => {
      const order = JSON.parse(line);
      try {
        say({ value: await Promise.race([known[order.do](order), broken]) });
      } catch (error) {
        say({ error: String(error.stack ?? error) });
      }
    })
    .on("close", () => process.exit(0));
  say(first);
}
