/**
 * Owns one child process that serves: start until ready, signal, stop, start again, with its output in a file.
 *
 * Children run in sessions of their own: a Ctrl-C in the terminal reaches only this process, which then stops them in
 * order. Should this process die without doing that, the leash ends them.
 */
import { type ChildProcess, spawn } from "node:child_process";
import { closeSync, mkdirSync, openSync, readFileSync } from "node:fs";
import { dirname } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { ShardpactError } from "../../model/errors.ts";
import { hold, release } from "./leash.ts";

export interface ServerProcessOptions {
  /** For messages: `nats-server`. */
  readonly name: string;
  readonly command: string;
  readonly args: readonly string[];
  readonly env?: Readonly<Record<string, string>>;
  readonly cwd?: string;
  /** Run as this user (only root may). */
  readonly uid?: number;
  readonly gid?: number;
  /** Output is appended here. */
  readonly logFile: string;
  /** Asks for an orderly end. */
  readonly stopSignal: NodeJS.Signals;
  /** How long an orderly end may take before SIGKILL. */
  readonly stopTimeoutMs: number;
  readonly readyTimeoutMs: number;
  /** Resolves true once it serves; asked every 25 ms until it does. */
  readonly ready: () => Promise<boolean>;
}

export interface ServerProcess {
  /** Process id, or null while it isn't running. */
  readonly pid: number | null;
  /** Resolves when it serves. No-op when it runs. @throws ShardpactError `setup_failed` with the end of its output */
  start(): Promise<void>;
  /** Sends a signal. Resolves when the process has ended, for signals that end it; at once for SIGSTOP and SIGCONT. */
  kill(signal: NodeJS.Signals): Promise<void>;
  /** An orderly end, by force after `stopTimeoutMs`. Idempotent. */
  stop(): Promise<void>;
  restart(): Promise<void>;
}

const READY_POLL_MS = 25;
/** Signals that the process outlives. */
const PASSING: readonly NodeJS.Signals[] = ["SIGSTOP", "SIGCONT", "SIGTSTP", "SIGHUP", "SIGUSR1", "SIGUSR2"];

interface Running {
  readonly pid: number;
  readonly ended: Promise<string>;
  /** Why it ended, or null while it runs. */
  outcome: string | null;
}

export function createServerProcess(options: ServerProcessOptions): ServerProcess {
  let running: Running | null = null;

  const server: ServerProcess = {
    get pid() {
      return running?.outcome === null ? running.pid : null;
    },
    async start() {
      if (server.pid !== null) return;
      running = launch(options);
      await untilReady(options, running, server);
    },
    async kill(signal) {
      const target = running;
      if (target === null || target.outcome !== null) return;
      send(target.pid, signal);
      if (!PASSING.includes(signal)) await target.ended;
    },
    async stop() {
      const target = running;
      if (target === null || target.outcome !== null) return;
      send(target.pid, options.stopSignal);
      // A process that was stopped by SIGSTOP takes no signal before it goes on.
      send(target.pid, "SIGCONT");
      const timer = setTimeout(() => send(target.pid, "SIGKILL"), options.stopTimeoutMs);
      await target.ended;
      clearTimeout(timer);
    },
    async restart() {
      await server.stop();
      await server.start();
    },
  };
  return server;
}

function launch(options: ServerProcessOptions): Running {
  mkdirSync(dirname(options.logFile), { recursive: true });
  const log = openSync(options.logFile, "a");
  let child: ChildProcess;
  try {
    child = spawn(options.command, [...options.args], {
      env: { ...process.env, ...options.env },
      ...(options.cwd === undefined ? {} : { cwd: options.cwd }),
      ...(options.uid === undefined ? {} : { uid: options.uid }),
      ...(options.gid === undefined ? {} : { gid: options.gid }),
      stdio: ["pipe", log, log],
      detached: true,
    });
  } finally {
    closeSync(log);
  }
  child.stdin?.on("error", () => {});
  const ended = new Promise<string>((resolve) => {
    child.once("error", (error) => resolve(error.message));
    child.once("exit", (code, signal) => resolve(signal === null ? `exit code ${code}` : `signal ${signal}`));
  });
  const running: Running = { pid: child.pid ?? 0, ended, outcome: null };
  if (child.pid !== undefined) hold(child.pid);
  void ended.then((outcome) => {
    running.outcome = outcome;
    release(running.pid);
  });
  return running;
}

async function untilReady(options: ServerProcessOptions, running: Running, server: ServerProcess): Promise<void> {
  const deadline = performance.now() + options.readyTimeoutMs;
  for (;;) {
    if (running.outcome === null && (await options.ready())) return;
    if (running.outcome !== null) throw startFailed(options, `ended with ${running.outcome}`);
    if (performance.now() > deadline) {
      await server.kill("SIGKILL");
      throw startFailed(options, `did not serve within ${options.readyTimeoutMs} ms`);
    }
    await sleep(READY_POLL_MS);
  }
}

function startFailed(options: ServerProcessOptions, what: string): ShardpactError {
  const output = readFileSync(options.logFile, "utf8").trim().split("\n").slice(-8).join("\n");
  return new ShardpactError("setup_failed", `${options.name} ${what} while starting:\n${output}`, {
    details: { command: options.command, logFile: options.logFile },
    hint: `Its whole output is in ${options.logFile}.`,
  });
}

function send(pid: number, signal: NodeJS.Signals): void {
  try {
    process.kill(pid, signal);
  } catch {
    // It has ended meanwhile: what the caller wanted, or what `ended` tells.
  }
}
