/**
 * Owns showing progress: a bar when a person watches, one line per phase in a pipe, nothing with `--json`. On stderr.
 */
import { SingleBar } from "cli-progress";
import { bytesText, count } from "./output.ts";

type Unit = "bytes" | "rows";

export interface Progress {
  /** `done` of `total` bytes (or rows) of a phase; a new phase ends the one before. */
  update(phase: string, done: number, total: number, unit?: Unit): void;
  /** A line beside the bar. */
  warn(text: string): void;
  stop(): void;
}

/** Phases whose size is not known before. */
const UNMEASURED: ReadonlySet<string> = new Set(["import", "pages", "commit"]);

export function createProgress(json: boolean): Progress {
  if (json) return { update: () => undefined, warn: () => undefined, stop: () => undefined };
  return process.stderr.isTTY ? barProgress() : lineProgress();
}

function barProgress(): Progress {
  let bar: SingleBar | null = null;
  let current = "";
  const stop = () => {
    bar?.stop();
    bar = null;
  };
  return {
    warn: (text) => {
      stop();
      current = "";
      process.stderr.write(`! ${text}\n`);
    },
    update: (phase, done, total, unit = "bytes") => {
      if (phase !== current) stop();
      current = phase;
      if (total === 0 && done === 0) return; // not known yet, or nothing to do
      const figures = { done: textOf(done, unit), all: textOf(total, unit) };
      if (bar === null) {
        bar = new SingleBar({
          format: total === 0 ? "{phase} {done}" : "{phase} {bar} {percentage}% · {done} of {all}",
          stream: process.stderr,
          hideCursor: true,
          clearOnComplete: true,
        });
        bar.start(Math.max(total, done), done, { phase: phase.padEnd(8), ...figures });
      }
      bar.setTotal(Math.max(total, done));
      bar.update(done, figures);
    },
    stop,
  };
}

function lineProgress(): Progress {
  let current = "";
  return {
    warn: (text) => void process.stderr.write(`! ${text}\n`),
    update: (phase, _done, total, unit = "bytes") => {
      if (phase === current || (total === 0 && !UNMEASURED.has(phase))) return;
      current = phase;
      process.stderr.write(total === 0 ? `${phase}\n` : `${phase} ${textOf(total, unit)}\n`);
    },
    stop: () => undefined,
  };
}

function textOf(value: number, unit: Unit): string {
  return unit === "bytes" ? bytesText(value) : `${count(value)} rows`;
}
