/**
 * Owns showing progress: a bar when a person watches, one line per phase in a pipe, nothing with `--json`. On stderr.
 */
import { SingleBar } from "cli-progress";
import { bytesText } from "./output.ts";

export interface Progress {
  /** `doneBytes` of `totalBytes` of a phase; a new phase ends the one before. */
  update(phase: string, doneBytes: number, totalBytes: number): void;
  /** A line beside the bar. */
  warn(text: string): void;
  stop(): void;
}

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
    update: (phase, done, total) => {
      if (phase !== current) stop();
      current = phase;
      if (total === 0) return; // not known yet, or nothing to do
      const figures = { done: bytesText(done), all: bytesText(total) };
      if (bar === null) {
        bar = new SingleBar({
          format: "{phase} {bar} {percentage}% · {done} of {all}",
          stream: process.stderr,
          hideCursor: true,
          clearOnComplete: true,
        });
        bar.start(total, done, { phase: phase.padEnd(8), ...figures });
      }
      bar.setTotal(total);
      bar.update(done, figures);
    },
    stop,
  };
}

function lineProgress(): Progress {
  let current = "";
  return {
    warn: (text) => void process.stderr.write(`! ${text}\n`),
    update: (phase, _done, total) => {
      if (phase === current || (total === 0 && phase !== "commit")) return;
      current = phase;
      process.stderr.write(total === 0 ? `${phase}\n` : `${phase} ${bytesText(total)}\n`);
    },
    stop: () => undefined,
  };
}
