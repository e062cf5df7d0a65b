/**
 * Loader samples per second, verified, over rows of 64 and of 784 float32 from a warm page cache, beside the same loader with
 * a null hasher and beside other loaders over the same rows. All end with an owned dense float32 batch, every byte written.
 */
import type { ConfirmedVersion } from "../src/client/types.ts";
import { DEFAULT_PORTS, type LoaderPorts } from "../src/loader/internal.ts";
import type { Loader } from "../src/tfjs/loader.ts";
import { buildPackage, built } from "./built.ts";
import { makeFloatData, type FloatData } from "./float-data.ts";
import { alternate, pythonPeers, timed, type Measured, type Run } from "./peers.ts";
import { type Figure, rate } from "./report.ts";
import { measureReadyTensors, measureTfData } from "./tfdata.ts";

const MEGABYTES = 307; // more than the shuffle window, so that windows are really used
const BATCH_SIZE = 256;
const RUNS = 5;
const TFDATA_ROWS = 20_000;

const UNVERIFIED: LoaderPorts = { ...DEFAULT_PORTS, hashing: "none" };
const UNIT = "samples/s";

type Strength = "none" | "window";

/** Of the package as it is shipped: sources that are transformed at run time run at a third of its speed. */
async function open(version: ConfirmedVersion, strength: Strength, ports: LoaderPorts): Promise<Loader> {
  const { createLoaderWith } = await built<typeof import("../src/tfjs/loader.ts")>("tfjs/loader.ts");
  return createLoaderWith(version, { xs: "x", batchSize: BATCH_SIZE, shuffle: strength, seed: 7 }, ports);
}

/** The samples of one epoch, tensors made and disposed. */
const epoch = (loader: Loader, rows: number): Promise<Run> =>
  timed(async () => {
    for await (const batch of loader) batch[Symbol.dispose]();
    return rows;
  });

const cpuText = (name: string, { cpuNs }: Measured): string => `${name} ${cpuNs.toFixed(0)}`;

async function compare(data: FloatData, strength: Strength, note: (line: string) => void): Promise<Figure[]> {
  const { version, rows, width } = data;
  const [file] = data.files as [string];
  const shuffled = strength === "window";
  await using ours = await open(version, strength, DEFAULT_PORTS);
  await using unhashed = await open(version, strength, UNVERIFIED);
  const rates = await alternate(RUNS, {
    ours: () => epoch(ours, rows),
    unhashed: () => epoch(unhashed, rows),
    rows: () => measureTfData(file, "x", width, BATCH_SIZE, TFDATA_ROWS, shuffled),
    ready: () => measureReadyTensors(file, "x", width, BATCH_SIZE),
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
const PYTHON: readonly { readonly peer: string; readonly strength: Strength; readonly reach: number | null }[] = [
  { peer: "HF datasets, Arrow + copy", strength: "none", reach: 1.5 },
  { peer: "HF datasets, shuffled", strength: "window", reach: 5 },
  { peer: "MosaicML streaming", strength: "window", reach: 20 },
  { peer: "torch DataLoader, default", strength: "window", reach: 8 },
  { peer: "torch in-memory BatchSampler", strength: "window", reach: 0.2 },
];

async function comparePython(data: FloatData, note: (line: string) => void): Promise<Figure[]> {
  const { version, rows, width } = data;
  const [file] = data.files as [string];
  await using contiguous = await open(version, "none", DEFAULT_PORTS);
  await using window = await open(version, "window", DEFAULT_PORTS);
  const measure = () => alternate(RUNS, { none: () => epoch(contiguous, rows), window: () => epoch(window, rows) });
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
  const figures: Figure[] = [];
  for (const width of [64, 784]) {
    await using data = await makeFloatData(width, MEGABYTES);
    note(
      `${data.rows.toLocaleString("en")} rows of ${width} float32, batches of ${BATCH_SIZE}, ${RUNS} alternating runs`,
    );
    for (const strength of ["none", "window"] as const) figures.push(...(await compare(data, strength, note)));
    if (width === 64) figures.push(...(await comparePython(data, note)));
  }
  return figures;
}
