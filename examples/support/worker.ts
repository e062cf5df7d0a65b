/**
 * One of N workers that train one model: opens the version that a majority confirmed, reads its own rank's rows, and adds up
 * gradients with the others. `many-workers.ts` starts it; on several machines, start it with whatever starts your jobs.
 * Run: node --import tsx examples/support/worker.ts '{ …WorkerConfig as JSON… }'
 */
import { existsSync } from "node:fs";
import path from "node:path";
import type { LayersModel, Scalar } from "@tensorflow/tfjs-node";
import { connect, isShardpactError, type Batch, type ConnectOptions, type Dataset, type Loader } from "shardpact";
import { checkpoint, checkpointedState, restore } from "shardpact/tfjs";
import { digitColumns, digitModel } from "./digit-model.ts";
import { PeerFault } from "./arrivals.ts";
import { openExchange, type Exchange } from "./exchange.ts";
import { applyGradient, gradientLength, gradientOf, meanOf, weightsDigest } from "./gradients.ts";

export interface WorkerConfig {
  readonly group: Pick<ConnectOptions, "url" | "group" | "stores">;
  /** NATS servers that gradients go over. */
  readonly servers: readonly string[];
  /** New for each start of the workers. */
  readonly attempt: string;
  /** `mnist@v1`. */
  readonly dataset: string;
  /** Where this worker has copies of the shards. */
  readonly stores?: readonly string[];
  /** The group keeps its plan, and refuses a worker that comes with another. */
  readonly run?: string;
  /** Publishing goes on: at the end of an epoch all workers move to one newer version, which the run agrees on. */
  readonly follow?: boolean;
  readonly rank: number;
  readonly world: number;
  /** Rows of a step on this worker. */
  readonly batchSize: number;
  readonly epochs: number;
  /** A folder that all workers see: rank 0 writes it, all start from it. */
  readonly checkpointDir: string;
  readonly checkpointSteps: number;
  readonly joinTimeoutMs: number;
  readonly stepTimeoutMs: number;
}

/** What a worker tells whoever started it. */
export type WorkerReport =
  /** Its version is confirmed, its first batch is here: it goes to meet the others. */
  | { readonly kind: "ready" }
  /** `ids`: the rows of the step, of all workers in the order of ranks; `offset`: where in the epoch they stand. */
  | {
      readonly kind: "step";
      readonly step: number;
      readonly loss: number;
      readonly ids: readonly number[];
      readonly dataset: string;
      readonly epoch: number;
      readonly offset: number;
    }
  | { readonly kind: "done"; readonly weights: string; readonly accuracy: number | null }
  /** `peer`: the worker because of which it stops; null: itself. */
  | { readonly kind: "stopped"; readonly code: string; readonly message: string; readonly peer: number | null };

const { rank, world, ...config } = JSON.parse(process.argv[2] ?? "{}") as WorkerConfig;
const hasCheckpoint = existsSync(path.join(config.checkpointDir, "latest"));

function report(what: WorkerReport): void {
  if (process.send) process.send(what);
  else console.log(JSON.stringify({ rank, ...what }));
}

/** A new model and a loader at row 0, or both from the last checkpoint, which any number of workers may have written. */
async function start(dataset: Dataset): Promise<{ readonly model: LayersModel; readonly loader: Loader }> {
  const { batchSize, run, follow = false, checkpointDir } = config;
  const order = { ...digitColumns, split: "train", shuffle: true, seed: 7 } as const;
  const options = { ...order, batchSize, rank, world, follow, ...(run === undefined ? {} : { run: { id: run } }) };
  if (hasCheckpoint) return restore(checkpointDir, dataset, options);
  return { model: digitModel(), loader: dataset.loader(options) };
}

/** One step: all workers' gradients or none. */
async function trainStep(exchange: Exchange, model: LayersModel, batch: Batch, step: number): Promise<void> {
  const { loss, gradient } = await gradientOf(model, batch);
  if (!Number.isFinite(loss)) throw new Error(`the loss of step ${step} is ${loss}`);
  const own = { origin: batch.origin, ids: [...batch.ids], weights: await weightsDigest(model), loss, gradient };
  const all = await exchange.step(`epoch ${batch.epoch}, row ${batch.offset}`, own);
  applyGradient(model, meanOf(all.map((each) => each.gradient)));
  batch.ack();
  const mean = all.reduce((sum, each) => sum + each.loss, 0) / world;
  const { dataset, epoch, from: offset } = batch.origin;
  report({ kind: "step", step, loss: mean, ids: all.flatMap((each) => each.ids), dataset, epoch, offset });
}

async function train(dataset: Dataset, exchange: Exchange, model: LayersModel, loader: Loader): Promise<void> {
  const { epochs, batchSize, checkpointDir, checkpointSteps } = config;
  const save = () => checkpoint(checkpointDir, { model, loader });
  let isFirst = true;
  for (let { epoch } = loader.state(); epoch < epochs; epoch++) {
    for await (const batch of loader) {
      if (isFirst) report({ kind: "ready" });
      isFirst = false;
      const step = epoch * loader.size + batch.offset / (batchSize * world) + 1;
      await trainStep(exchange, model, batch, step);
      batch[Symbol.dispose]();
      if (rank === 0 && step % checkpointSteps === 0) await save();
    }
  }
  if (rank === 0) await save();
  const accuracy = rank === 0 ? await accuracyOf(dataset, model) : null;
  report({ kind: "done", weights: await weightsDigest(model), accuracy });
}

async function accuracyOf(dataset: Dataset, model: LayersModel): Promise<number> {
  await using val = dataset.evaluation({ ...digitColumns, split: "val", batchSize: 250 });
  const [, accuracy] = (await model.evaluateDataset(val as never, {})) as Scalar[];
  return (await accuracy!.data())[0]!;
}

async function work(): Promise<void> {
  await using group = await connect(config.group);
  // Where the run was by then, if it follows its dataset.
  const at = config.follow && hasCheckpoint ? (await checkpointedState(config.checkpointDir)).dataset : config.dataset;
  await using dataset = await group.open(at, config.stores ? { stores: config.stores } : {});
  const { model, loader } = await start(dataset);
  await using _reading = loader;
  const { servers, attempt, joinTimeoutMs, stepTimeoutMs } = config;
  const exchange = await openExchange({
    ...{ servers, attempt, rank, world, joinTimeoutMs, stepTimeoutMs },
    gradientBytes: gradientLength(model) * Float32Array.BYTES_PER_ELEMENT,
  });
  try {
    await train(dataset, exchange, model, loader);
  } catch (error) {
    await exchange.leave((error as Error).message);
    throw error;
  } finally {
    await exchange.close();
  }
}

process.once("disconnect", () => process.exit(1)); // whoever started it is gone
process.channel?.unref();
try {
  await work();
} catch (error) {
  const peer = error instanceof PeerFault ? error.rank : null;
  const code = isShardpactError(error) ? error.code : peer === null ? "failed" : "peer";
  report({ kind: "stopped", code, message: (error as Error).message, peer });
  process.exitCode = 1;
}
