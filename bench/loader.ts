/**
 * Loader samples per second, verified, over rows of 64 and of 784 float32 from a warm page cache, beside the same loader with
 * a null hasher and beside other loaders over the same rows, each in a process of its own. All end with an owned dense float32 batch, every byte written.
 */
import type { Strength } from "../src/loader/order/spec.ts";
import { buildPackage, versionsOf } from "./built.ts";
import { makeFloatData, type FloatData } from "./float-data.ts";
import { startClient, type LoaderClient } from "./loader-clients.ts";
import { alternate, pythonPeers, type Measured } from "./peers.ts";
import { type Figure, rate } from "./report.ts";

const MEGABYTES = 307; // more than the shuffle window, so that windows are really used
const BATCH_SIZE = 256;
const RUNS = 5;
const TFDATA_ROWS = 20_000;

const UNIT = "samples/s";

/** Ours in a process of its own, tensors made and disposed. */
const ours = ({ data }: FloatData, strength: Strength, hashing: "blake3" | "none" = "blake3"): LoaderClient =>
  startClient({
    kind: "loader",
    data,
    options: { xs: "x", batchSize: BATCH_SIZE, shuffle: strength, seed: 7 },
    hashing,
    ends: "tensors",
    counts: "samples",
  });

const cpuText = (name: string, { cpuNs }: Measured): string => `${name} ${cpuNs.toFixed(0)}`;

async function compare(data: FloatData, strength: Strength, note: (line: string) => void): Promise<Figure[]> {
  const { width } = data;
  const [file] = data.files as [string];
  const shuffled = strength === "window";
  const tfData = { file, column: "x", width, batchSize: BATCH_SIZE, rowsMax: TFDATA_ROWS, shuffle: shuffled };
  await using verified = ours(data, strength);
  await using unverified = ours(data, strength, "none");
  await using rows = startClient({ kind: "rows", ...tfData });
  await using ready = startClient({ kind: "ready", ...tfData });
  const rates = await alternate(RUNS, {
    ours: verified.run,
    unhashed: unverified.run,
    rows: rows.run,
    ready: ready.run,
  });
  const name = `${width}×f32 ${shuffled ? "window-shuffled" : "contiguous"}, verified`;
  note(
    `${name}: CPU ns a sample, all threads: ${Object.entries(rates)
      .map(([k, v]) => cpuText(k, v))
      .join(", ")}`,
  );
  const against = (peer: string, { rate: value }: Measured, reach: number | null): Figure =>
    rate("loader", name, UNIT, rates.ours.rate, { name: peer, value }, reach);
  const figures = [
    against("the same without hashing", rates.unhashed, shuffled ? 0.9 : null),
    against("tf.data rows → batch", rates.rows, shuffled ? 35 : 30),
  ];
  if (!shuffled) figures.push(against("tf.data, generator of ready tensors", rates.ready, 0.6));
  return figures;
}

/** What the design asks for beside each Python peer, by the start of its name; `shuffled` is what ours is compared in. */
const PYTHON: readonly {
  readonly peer: string;
  readonly strength: "none" | "window";
  readonly reach: number | null;
}[] = [
  { peer: "HF datasets, Arrow + copy", strength: "none", reach: 1.5 },
  { peer: "HF datasets, shuffled", strength: "window", reach: 5 },
  { peer: "HF datasets, numpy format", strength: "none", reach: null },
  { peer: "HF datasets, default (Python lists)", strength: "none", reach: null },
  { peer: "MosaicML streaming", strength: "window", reach: 20 },
  { peer: "torch DataLoader, default", strength: "window", reach: 8 },
  { peer: "torch in-memory BatchSampler", strength: "window", reach: 0.2 },
];

async function comparePython(data: FloatData, note: (line: string) => void): Promise<Figure[]> {
  const { width } = data;
  const [file] = data.files as [string];
  await using contiguous = ours(data, "none");
  await using window = ours(data, "window");
  const measure = () => alternate(RUNS, { none: contiguous.run, window: window.run });
  const before = await measure();
  const peers = await pythonPeers(file, "x", BATCH_SIZE, RUNS, note);
  if (peers.length === 0) return [];
  const after = await measure();
  return PYTHON.flatMap(({ peer, strength, reach }) => {
    const found = peers.find(({ name }) => name.startsWith(peer));
    if (!found) return [];
    note(`${found.name}: CPU ns a sample ${(found.cpu * 1000).toFixed(0)}, ours ${before[strength].cpuNs.toFixed(0)}`);
    const value = (before[strength].rate + after[strength].rate) / 2;
    return [rate("loader", `${width}×f32 ${strength}`, UNIT, value, { name: found.name, value: found.rate }, reach)];
  });
}

export async function benchLoader(note: (line: string) => void): Promise<Figure[]> {
  await buildPackage();
  note(
    `ours and tf.data: ${await versionsOf("@tensorflow/tfjs-node", "apache-arrow")}; no flags of Node, defaults of both`,
  );
  note(
    "tf.data: generator of rows, shuffle(10,000), batch(256), and of ready tensors; HF: iter(256); others: their defaults",
  );
  const figures: Figure[] = [];
  for (const width of [64, 784]) {
    await using data = await makeFloatData(width, MEGABYTES);
    note(
      `${data.rows.toLocaleString("en")} rows of ${width} float32, batches of ${BATCH_SIZE}, ${RUNS} alternating runs`,
    );
    for (const strength of ["none", "window"] as const) figures.push(...(await compare(data, strength, note)));
    figures.push(...(await comparePython(data, note)));
  }
  return figures;
}
