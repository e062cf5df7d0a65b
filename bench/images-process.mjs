/**
 * A training process as users run it (plain JavaScript, the built package, tfjs-node) that takes epochs of pictures: with our
 * loader, or with tf.data. Forked by `images.ts`, told over IPC what to load, then once for each epoch.
 */
import { readFileSync } from "node:fs";
import { readFile } from "node:fs/promises";
import "../dist/tfjs-node-compat.js";
import { createLoader } from "../dist/tfjs/loader.js";
import { openDirectoryStore } from "../dist/shards/directory-store.js";

const tf = await import("@tensorflow/tfjs-node");

/** CPU time of the training thread so far, which Node itself does not tell; NaN where there is no /proc. */
function threadCpuMs() {
  try {
    return Number(readFileSync(`/proc/self/task/${process.pid}/schedstat`, "utf8").split(" ")[0]) / 1e6;
  } catch {
    return NaN;
  }
}

async function open({ manifest, pages, store, ...facts }) {
  return {
    ...facts,
    dataset: "pictures",
    version: 1,
    index: 7,
    stores: [await openDirectoryStore(store)],
    manifest: async () => manifest,
    page: async (position) => pages[position],
    reconfirm: async () => facts.confirmation,
  };
}

/** Epochs of our loader: pictures seen. */
async function ours({ data, options }) {
  const loader = createLoader(await open(data), options);
  return async () => {
    let seen = 0;
    for await (const batch of loader) {
      seen += batch.ids.length;
      batch[Symbol.dispose]();
    }
    return seen;
  };
}

/** Epochs of tf.data over the same bytes, already in memory; decodeJpeg runs on the thread that trains. */
async function tfdata({ files, options: { batchSize } }) {
  const pictures = await Promise.all(files.map((file) => readFile(file)));
  return async () => {
    let seen = 0;
    const decoded = tf.data
      .array(pictures.map((_, i) => i))
      .shuffle(pictures.length, "7")
      .map((i) => tf.tidy(() => tf.node.decodeJpeg(pictures[i], 3).toFloat()));
    await decoded.batch(batchSize).forEachAsync((batch) => {
      seen += batch.shape[0];
      batch.dispose();
    });
    return seen;
  };
}

/** One epoch, and what it took. */
async function measured(epoch) {
  globalThis.gc(); // so that an epoch does not pay for what another left
  const [cpu, threadMs, startedMs] = [process.cpuUsage(), threadCpuMs(), performance.now()];
  const amount = await epoch();
  const ms = performance.now() - startedMs;
  const { user, system } = process.cpuUsage(cpu);
  process.send({ amount, ms, cpuMs: (user + system) / 1000, threadMs: threadCpuMs() - threadMs });
}

async function begin(what) {
  tf.ones([3]).add(1).dispose();
  const epoch = await (what.who === "ours" ? ours : tfdata)(what);
  process.on("message", () => void measured(epoch));
  process.send("ready");
}

process.once("message", (what) => void begin(what));
