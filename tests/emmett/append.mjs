// Appends what stands on standard input, a line of JSON per stream, by the library itself; several streams at a time.
import { createInterface } from "node:readline/promises";
import { getPostgreSQLEventStore } from "@event-driven-io/emmett-postgresql";

const AT_ONCE = 8;
const store = getPostgreSQLEventStore(process.argv[2]);
const append = async ({ stream, events }) => {
  for (const { type, data } of events) await store.appendToStream(stream, [{ type, data }]);
};
let waiting = [];
for await (const line of createInterface({ input: process.stdin })) {
  waiting.push(JSON.parse(line));
  if (waiting.length === AT_ONCE) await Promise.all(waiting.splice(0).map(append));
}
await Promise.all(waiting.map(append));
await store.close();
