/**
 * Owns the client processes: started, killed and started again under a new name, told to finish at the end.
 */
import { mkdirSync } from "node:fs";
import { join } from "node:path";
import { createServerProcess, type ServerProcess } from "../../src/cli/embedded/server-process.ts";
import type { ClientOptions } from "./client.ts";
import type { Cluster } from "./cluster.ts";
import { ON_DIST } from "../support/dist.ts";
import { readLines } from "./history.ts";

const WORKERS = 2;
const READY_TIMEOUT_MS = 60_000;
const FINISH_TIMEOUT_MS = 180_000;

export interface Clients {
  readonly names: readonly string[];
  /** Of all lives of all clients. */
  files(): readonly string[];
  kill(name: string): Promise<void>;
  /** A new life: another actor, who knows nothing. */
  restart(name: string): Promise<void>;
  /** Each ends its operation, reads everything once and ends. @throws when one had to be killed */
  finish(): Promise<void>;
}

export interface ClientsOptions {
  readonly cluster: Cluster;
  readonly dir: string;
  readonly count: number;
  readonly seed: number;
  readonly startMs: number;
  readonly datasetMs: number;
}

export async function startClients(options: ClientsOptions): Promise<Clients> {
  const { cluster, dir, count, seed, startMs, datasetMs } = options;
  const names = Array.from({ length: count }, (_, i) => `c${i + 1}`);
  const running = new Map<string, ServerProcess>();
  const lives = new Map<string, number>();
  const files: string[] = [];
  const folder = join(dir, "clients");
  mkdirSync(folder, { recursive: true });

  async function restart(name: string): Promise<void> {
    const life = (lives.get(name) ?? 0) + 1;
    lives.set(name, life);
    const file = join(folder, `${name}.${life}.jsonl`);
    const client: ClientOptions = {
      name: `${name}.${life}`,
      urls: await cluster.urlsFor(name),
      seed: (seed * 16 + names.indexOf(name)) * 1024 + life,
      workers: WORKERS,
      ...{ startMs, datasetMs, file },
    };
    const started = clientProcess(client, join(folder, `${name}.${life}.log`));
    files.push(file);
    running.set(name, started);
    await started.start();
  }

  await Promise.all(names.map(restart));
  return {
    names,
    files: () => files,
    kill: async (name) => running.get(name)?.kill("SIGKILL"),
    restart,
    async finish() {
      await Promise.all([...running.values()].map((client) => client.stop()));
      const failed = files.filter((file) => {
        const lines = readLines(file);
        const open =
          lines.filter(({ kind }) => kind === "call").length > lines.filter(({ kind }) => kind === "return").length;
        return open && [...lives].some(([name, life]) => file.endsWith(`/${name}.${life}.jsonl`));
      });
      if (failed.length > 0) throw new Error(`clients did not finish by themselves: ${failed.join(", ")}`);
    },
  };
}

function clientProcess(client: ClientOptions, logFile: string): ServerProcess {
  return createServerProcess({
    name: `client ${client.name}`,
    command: process.execPath,
    args: [...ON_DIST, join(import.meta.dirname, "client.ts"), JSON.stringify(client)],
    logFile,
    stopSignal: "SIGTERM",
    stopTimeoutMs: FINISH_TIMEOUT_MS,
    readyTimeoutMs: READY_TIMEOUT_MS,
    ready: () => Promise.resolve(readLines(client.file).length > 0),
  });
}
