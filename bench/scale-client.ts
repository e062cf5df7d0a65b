/**
 * Opens a dataset as rank 0 of 64 and takes its first batch, with the compiled package. Prints one JSON line.
 * Usage: tsx bench/scale-client.ts URL DATASET
 */
import { built } from "./built.ts";

const { connect } = await built<typeof import("../src/index.ts")>("index.ts");
const { createHostLoader } = await built<typeof import("../src/loader/host-loader.ts")>("loader/host-loader.ts");

const MiB = 2 ** 20;
const [url = "", dataset = ""] = process.argv.slice(2);
const cpuMs = (): number => {
  const { user, system } = process.cpuUsage();
  return (user + system) / 1000;
};
await using group = await connect({ url, onNotice: () => undefined });
const startMs = performance.now();
const startCpuMs = cpuMs();
await using opened = await group.open(dataset);
const openMs = performance.now() - startMs;
const openRssMiB = process.memoryUsage().rss / MiB;
const openCpuMs = cpuMs() - startCpuMs;
await using loader = createHostLoader(opened.source, {
  ...{ xs: "x", batchSize: 32, rank: 0, world: 64, shuffle: true, seed: 1, reconfirm: "open" },
});
await loader.iterate().next();
const firstBatchMs = performance.now() - startMs - openMs;
const firstBatchCpuMs = cpuMs() - startCpuMs - openCpuMs;
const rssMiB = process.memoryUsage().rss / MiB;
console.log(JSON.stringify({ openMs, openCpuMs, openRssMiB, firstBatchMs, firstBatchCpuMs, rssMiB }));
