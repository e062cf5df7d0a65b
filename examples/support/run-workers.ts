/**
 * Owns the worker processes of one attempt on this machine: starts them, tells what they report, and says how many can go
 * on. What a scheduler does on several machines.
 */
import { fork, type ChildProcess } from "node:child_process";
import { once } from "node:events";
import type { WorkerConfig, WorkerReport } from "./worker.ts";

/** How often a step is told on the terminal. */
const TELL_STEPS = 5;

export interface Attempt extends Omit<WorkerConfig, "rank"> {
  /** RANK@STEP, or none: SIGKILL once that worker has done that step. */
  readonly kill: string;
  readonly onStep: (step: StepReport) => void;
}

type StepReport = Extract<WorkerReport, { kind: "step" }>;

export interface Outcome {
  readonly isDone: boolean;
  /** Workers that did nothing wrong and may go on. */
  readonly fit: number;
}

interface Worker {
  readonly rank: number;
  readonly process: ChildProcess;
  lastStep: number;
  /** How it ended, by its own report; null: it was killed, or is running. */
  end: Exclude<WorkerReport, StepReport | { kind: "ready" }> | null;
}

/** Resolves when all workers have ended. One that hangs while others have stopped is killed. */
export async function runWorkers({ kill, onStep, ...config }: Attempt): Promise<Outcome> {
  const workers = Array.from({ length: config.world }, (_, rank) => startWorker({ ...config, rank }));
  for (const worker of workers) {
    worker.process.on("message", (message) => {
      const report = message as WorkerReport;
      if (report.kind === "step") onStep(report);
      tell(worker, report);
      if (kill === `${worker.rank}@${worker.lastStep}` && !worker.process.killed) {
        console.log(`  worker ${worker.rank} is killed (SIGKILL) after step ${worker.lastStep}`);
        worker.process.kill("SIGKILL");
      }
    });
  }
  await allEnded(workers, config);

  const isDone = workers.every(({ end }) => end?.kind === "done");
  if (isDone) tellResult(workers);
  const fit = workers.filter(({ end }) => end?.kind === "stopped" && end.peer !== null);
  if (fit.length > 0)
    console.log(
      `  fit to go on: ${list(fit.map(({ rank }) => rank))}; they applied steps up to ${list(fit.map(({ lastStep }) => lastStep))}`,
    );
  return { isDone, fit: fit.length };
}

function startWorker(config: WorkerConfig): Worker {
  const script = new URL("./worker.ts", import.meta.url);
  return { rank: config.rank, process: fork(script, [JSON.stringify(config)]), lastStep: 0, end: null };
}

function tell(worker: Worker, report: WorkerReport): void {
  switch (report.kind) {
    case "ready":
      return;
    case "step":
      worker.lastStep = report.step;
      if (worker.rank === 0 && (report.step === 1 || report.step % TELL_STEPS === 0))
        console.log(`  step ${report.step}  loss ${report.loss.toFixed(4)}`);
      return;
    case "stopped":
      console.log(`  worker ${worker.rank} stops: ${report.message}`);
      worker.end = report;
      return;
    case "done":
      worker.end = report;
  }
}

function tellResult(workers: readonly Worker[]): void {
  const ends = workers.flatMap(({ end }) => (end?.kind === "done" ? [end] : []));
  if (new Set(ends.map(({ weights }) => weights)).size !== 1) throw new Error("the workers ended with unequal weights");
  const accuracy = ends[0]?.accuracy ?? 0;
  console.log(
    `  done, with equal weights on all workers: ${(accuracy * 100).toFixed(1)} % of held-out digits are right`,
  );
}

type Timeouts = Pick<WorkerConfig, "joinTimeoutMs" | "stepTimeoutMs">;

async function allEnded(workers: readonly Worker[], { joinTimeoutMs, stepTimeoutMs }: Timeouts): Promise<void> {
  let timer: NodeJS.Timeout | undefined;
  const endRest = (): void => workers.forEach(({ process }) => void process.kill("SIGKILL"));
  const ended = workers.map(async ({ process }) => {
    const [code] = (await once(process, "close")) as [number | null]; // after its last report
    // From here on the others have nobody to wait for; their own deadlines end them by then.
    const haveMet = workers.some(({ lastStep }) => lastStep > 0);
    if (code !== 0) timer ??= setTimeout(endRest, 2 * stepTimeoutMs + (haveMet ? 0 : joinTimeoutMs));
  });
  await Promise.all(ended);
  clearTimeout(timer);
}

const list = (values: readonly number[]): string => [...new Set(values)].join(" and ");
