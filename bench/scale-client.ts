/**
 * Opens a dataset as rank 0 of 64 and takes its first batch. Prints one JSON line. Usage: tsx bench/scale-client.ts URL DATASET
 */
import { connect } from "../src/index.ts";
import { createHostLoader } from "../src/loader/host-loader.ts";

const [url = "", dataset = ""] = process.argv.slice(2);
await using group = await connect({ url, onNotice: () => undefined });
const startMs = performance.now();
await using opened = await group.open(dataset);
const openMs = performance.now() - startMs;
await using loader = createHostLoader(opened.source, {
  ...{ xs: "x", batchSize: 32, rank: 0, world: 64, shuffle: true, seed: 1, reconfirm: "open" },
});
await loader.iterate().next();
const firstBatchMs = performance.now() - startMs - openMs;
console.log(JSON.stringify({ openMs, firstBatchMs, rssMiB: process.memoryUsage().rss / 2 ** 20 }));
