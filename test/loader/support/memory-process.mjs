/**
 * A training process as users run it (plain JavaScript, the built package, tfjs-node) that says what epochs of a loader do to
 * its memory. Forked by `measure-memory.ts`, told over IPC what to load.
 */
import { readdirSync, readFileSync, writeFileSync } from "node:fs";
import { setTimeout as sleep } from "node:timers/promises";
import "../../../dist/tfjs-node-compat.js";
import { createLoaderWith } from "../../../dist/tfjs/loader.js";
import { DEFAULT_PORTS } from "../../../dist/loader/internal.js";
import { openDirectoryStore } from "../../../dist/shards/directory-store.js";

const tf = await import("@tensorflow/tfjs-node");

/** Bytes of a line of /proc/self/status. */
const statusBytes = (name) => {
  const line = readFileSync("/proc/self/status", "utf8").match(new RegExp(`^${name}:\\s+(\\d+) kB`, "m"));
  return Number(line[1]) * 1024;
};

async function open({ manifest, pages, store, ...facts }) {
  return {
    ...facts,
    dataset: "things",
    version: 1,
    index: 7,
    stores: [await openDirectoryStore(store)],
    manifest: async () => manifest,
    page: async (position) => pages[position],
    reconfirm: async () => facts.confirmation,
  };
}

async function epoch(loader) {
  for await (const batch of loader) batch[Symbol.dispose]();
}

process.once("message", (what) => void measure(what));

async function measure({ small, data, options, epochs }) {
  tf.ones([3]).add(1).dispose();
  const first = createLoaderWith(await open(small), { ...options, shuffle: "none" }, DEFAULT_PORTS);
  for (let i = 0; i < 3; i++) await epoch(first);
  await first.close();
  globalThis.gc();
  await sleep(300); // what was collected is given back by another thread
  globalThis.gc();
  const startBytes = statusBytes("VmRSS");
  writeFileSync("/proc/self/clear_refs", "5"); // VmHWM begins anew
  const loader = createLoaderWith(await open(data), options, DEFAULT_PORTS);
  const tensors = [];
  const files = [];
  for (let i = 0; i < epochs; i++) {
    await epoch(loader);
    tensors.push(tf.memory().numTensors);
    files.push(readdirSync("/proc/self/fd").length);
  }
  const peakBytes = statusBytes("VmHWM");
  await loader.close();
  process.send({ startBytes, peakBytes, tensors, files });
  process.disconnect();
}
