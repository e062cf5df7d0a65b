/**
 * One worker of `examples/support/worker.ts` as a process of its own, and what it reports.
 */
import { type ChildProcess, fork } from "node:child_process";
import path from "node:path";
import type { WorkerConfig, WorkerReport } from "../../examples/support/worker.ts";
import { EXAMPLES, NODE_ARGS } from "./run-example.ts";

export interface StartedWorker {
  readonly child: ChildProcess;
  readonly reports: WorkerReport[];
  /** Resolves with its first report of that kind. @throws when it ends without one */
  until<K extends WorkerReport["kind"]>(kind: K): Promise<Extract<WorkerReport, { kind: K }>>;
}

export function startWorkerProcess(config: WorkerConfig): StartedWorker {
  const child = fork(path.join(EXAMPLES, "support", "worker.ts"), [JSON.stringify(config)], {
    execArgv: NODE_ARGS,
    stdio: ["ignore", "ignore", "pipe", "ipc"],
  });
  let stderr = "";
  child.stderr?.setEncoding("utf8").on("data", (text: string) => (stderr += text));
  const reports: WorkerReport[] = [];
  child.on("message", (message) => void reports.push(message as WorkerReport));
  return {
    child,
    reports,
    until: (kind) =>
      new Promise((resolve, reject) => {
        const look = (): void => {
          const found = reports.find((report) => report.kind === kind);
          if (found) resolve(found as never);
        };
        child.on("message", look);
        child.once("close", () => {
          look();
          reject(new Error(`it ended without '${kind}': ${JSON.stringify(reports.at(-1))}\n${stderr.slice(-500)}`));
        });
        look();
      }),
  };
}
