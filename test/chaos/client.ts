/**
 * Owns a client process: connects as any program would, works until it is told to stop (SIGTERM), then reads everything.
 * Usage: tsx test/chaos/client.ts OPTIONS, a JSON of `ClientOptions`.
 */
import { appendFileSync } from "node:fs";
import { setTimeout as sleep } from "node:timers/promises";
import { type Connection, openConnection } from "../../src/connect.ts";
import { isShardpactError } from "../../src/model/errors.ts";
import { createRandom } from "../sim/scheduler.ts";
import { type Line, machineMs } from "./history.ts";
import { createWorker } from "./workload.ts";

export interface ClientOptions {
  /** Also its name in every command. */
  readonly name: string;
  readonly urls: readonly string[];
  readonly seed: number;
  readonly workers: number;
  /** When the run began, on the machine's clock. */
  readonly startMs: number;
  /** Datasets are replaced every so many milliseconds. */
  readonly datasetMs: number;
  /** Lines are appended here. */
  readonly file: string;
}

const DATASETS = ["alpha", "beta"];
const CONNECT_EVERY_MS = 200;

const o = JSON.parse(process.argv[2] ?? "") as ClientOptions;
const write = (line: Line): void => appendFileSync(o.file, `${JSON.stringify(line)}\n`);
let stopping = false;
let lastId = 0;

process.once("SIGTERM", () => {
  stopping = true;
});
// Without its parent it has no purpose.
process.stdin.on("end", () => process.exit(1)).resume();

const round = (): number => Math.floor((machineMs() - o.startMs) / o.datasetMs);
const datasetsOf = (n: number): string[] => DATASETS.map((name) => `${name}-${n}`);

async function connectAtLast(): Promise<Connection | null> {
  while (!stopping) {
    try {
      return await openConnection({
        url: o.urls,
        actor: o.name,
        timeoutMs: 2_000,
        onNotice: ({ code, message }) => {
          if (code !== "resolved") write({ kind: "wrong", what: `${o.name} was told: ${message}` });
        },
      });
    } catch (error) {
      if (!isShardpactError(error) || !error.retryable) throw error;
    }
    await sleep(CONNECT_EVERY_MS);
  }
  return null;
}

const connection = await connectAtLast();
write({ kind: "ready" });
if (connection !== null) {
  const workers = Array.from({ length: o.workers }, (_, i) =>
    createWorker({
      name: `${o.name}/w${i + 1}`,
      session: connection.session,
      random: createRandom(o.seed * 64 + i),
      datasets: () => datasetsOf(round()),
      write,
      nextId: () => ++lastId,
    }),
  );
  await Promise.all(workers.map((worker) => worker.run(() => stopping)));
  const all = Array.from({ length: round() + 1 }, (_, n) => datasetsOf(n)).flat();
  await workers[0]?.readAll(all);
  await connection.close();
}
process.exit(0);
