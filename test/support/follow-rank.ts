/**
 * One rank of a run that follows its dataset, as a process of its own, so that it can be killed: trains nothing, and prints a
 * JSON line for each acknowledged batch. Usage: tsx test/support/follow-rank.ts OPTIONS, a JSON of `RankOptions`.
 */
import { setTimeout as sleep } from "node:timers/promises";
import { connect } from "../../src/index.ts";
import { createHostLoader } from "../../src/loader/host-loader.ts";
import { loaderState, type LoaderState } from "../../src/loader/cursor.ts";

export interface RankOptions {
  readonly url: string;
  readonly dataset: string;
  readonly run: string;
  readonly rank: number;
  readonly world: number;
  readonly epochs: number;
  readonly stepMs: number;
  readonly state: LoaderState | null;
}

/** What a line says. */
export interface RankLine {
  readonly epoch: number;
  readonly root: string;
  readonly rows: readonly number[];
  readonly state: LoaderState;
}

const { url, dataset, run, rank, world, epochs, stepMs, state } = JSON.parse(process.argv[2] ?? "") as RankOptions;
await using group = await connect(url);
const { source } = await group.open(state === null ? `${dataset}@v1` : `${dataset}@${state.root}`);
await using loader = createHostLoader(source, {
  ...{ xs: "x", batchSize: 8, shuffle: true, seed: 1, rank, world, run: { id: run }, follow: true, reconfirm: "epoch" },
  ...(state === null ? {} : { resume: loaderState.parse(state) }),
});
while (loader.state().epoch < epochs) {
  const epoch = loader.iterate();
  for (let batch = await epoch.next(); batch; batch = await epoch.next()) {
    loader.ack(batch);
    const { root } = batch.origin;
    const rows = [...(batch.columns.xs["x"]?.data ?? [])].map(Number);
    const line: RankLine = { epoch: batch.epoch, root, rows, state: loader.state() };
    process.stdout.write(`${JSON.stringify(line)}\n`);
    await sleep(stepMs);
  }
}
