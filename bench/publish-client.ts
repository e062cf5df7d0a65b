/**
 * Publishes a folder with the compiled package, into a store that is made for it and removed again; `none`: into one that
 * says that everything is there, so that nothing is copied. Prints one JSON line.
 * Usage: tsx bench/publish-client.ts URL DATASET FOLDER copy|none
 */
import { mkdtemp, readFile, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import type { ShardStore } from "../src/shards/port.ts";
import { built } from "./built.ts";

const { openConnection } = await built<typeof import("../src/connect.ts")>("connect.ts");
const { publish } = await built<typeof import("../src/client/publish.ts")>("client/publish.ts");
const { openDirectoryStore } =
  await built<typeof import("../src/shards/directory-store.ts")>("shards/directory-store.ts");

/** `maxRSS` counts what the parent had when it forked; where there is /proc, it is asked. */
async function peakMiB(): Promise<number> {
  const status = await readFile("/proc/self/status", "utf8").catch(() => "");
  const peakKiB = Number(/^VmHWM:\s+(\d+) kB/m.exec(status)?.[1] ?? process.resourceUsage().maxRSS);
  return peakKiB / 1024;
}

const [url = "", dataset = "", folder = "", copy = ""] = process.argv.slice(2);
const place = await mkdtemp(join(tmpdir(), "shardpact-bench-store-"));
try {
  await using connection = await openConnection({ url, onNotice: () => undefined });
  await using opened = await openDirectoryStore(place);
  const { spec: _, ...rest } = opened;
  const present: ShardStore = { ...rest, put: () => Promise.resolve("present") };
  const store = copy === "copy" ? opened : present;
  const before = process.cpuUsage();
  const startMs = performance.now();
  const { bytes } = await publish(connection.session, store, dataset, folder);
  const ms = performance.now() - startMs;
  const { user, system } = process.cpuUsage(before);
  const peakRssMiB = await peakMiB();
  console.log(JSON.stringify({ amount: bytes, ms, cpuMs: (user + system) / 1000, peakRssMiB }));
} finally {
  await rm(place, { recursive: true, force: true });
}
