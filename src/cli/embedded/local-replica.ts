/**
 * Owns one replica of a local group: a real `shardpact node` process, the same that runs in production.
 */
import { existsSync } from "node:fs";
import { createRequire } from "node:module";
import { join } from "node:path";
import { fileURLToPath, pathToFileURL } from "node:url";
import { createServerProcess } from "./server-process.ts";

export interface LocalReplica {
  readonly id: string;
  /** Null while it isn't running. */
  readonly pid: number | null;
  readonly configFile: string;
  readonly logFile: string;
  /** Its own database. */
  readonly postgresUrl: string;
  exited(): boolean;
  kill(signal: NodeJS.Signals): Promise<void>;
  stop(): Promise<void>;
  /** Starts again, stopping it first when it runs. Resolves when it answers. */
  restart(): Promise<void>;
}

export interface LocalReplicaOptions {
  readonly id: string;
  readonly dir: string;
  readonly configFile: string;
  readonly logName: string;
  readonly postgresUrl: string;
  /** Resolves true once it serves. */
  readonly ready: () => Promise<boolean>;
}

const READY_TIMEOUT_MS = 60_000;
const STOP_TIMEOUT_MS = 10_000;

/** Not started yet: `restart` starts it. */
export function localReplica(options: LocalReplicaOptions): LocalReplica {
  const logFile = join(options.dir, options.logName);
  const server = createServerProcess({
    name: `replica ${options.id}`,
    command: process.execPath,
    args: [...commandLine(), "node", "--config", options.configFile, "--exit-with-parent"],
    logFile,
    stopSignal: "SIGTERM",
    stopTimeoutMs: STOP_TIMEOUT_MS,
    readyTimeoutMs: READY_TIMEOUT_MS,
    ready: options.ready,
  });
  return {
    id: options.id,
    configFile: options.configFile,
    logFile,
    postgresUrl: options.postgresUrl,
    get pid() {
      return server.pid;
    },
    exited: () => server.pid === null,
    kill: (signal) => server.kill(signal),
    stop: () => server.stop(),
    restart: () => server.restart(),
  };
}

/** From a checkout the replica runs from source, like its caller; from an installed package, from dist. */
function commandLine(): readonly string[] {
  const compiled = fileURLToPath(new URL("../main.js", import.meta.url));
  if (existsSync(compiled)) return [compiled];
  const tsx = createRequire(import.meta.url).resolve("tsx");
  return ["--import", pathToFileURL(tsx).href, fileURLToPath(new URL("../main.ts", import.meta.url))];
}
