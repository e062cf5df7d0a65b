/**
 * Owns what backup, restore and recover share: rows going by on stderr, Ctrl-C, the line about a snapshot.
 */
import type { SnapshotInfo, SnapshotOptions } from "../storage/port.ts";
import { bytesText, count, dateText, type Output } from "./output.ts";

const REDRAW_MS = 100;

/** Runs the work with progress (unless JSON was asked for) and a signal that fires at Ctrl-C. */
export async function withProgress<T>(out: Output, work: (options: SnapshotOptions) => Promise<T>): Promise<T> {
  const controller = new AbortController();
  const interrupt = () => controller.abort(new Error("interrupted"));
  process.once("SIGINT", interrupt);
  const live = process.stderr.isTTY && !out.json;
  let step = "";
  let drawnMs = 0;
  try {
    return await work({
      signal: controller.signal,
      onProgress(now) {
        if (out.json) return;
        if (!live && now.step !== step) process.stderr.write(`${now.step}\n`);
        step = now.step;
        if (!live || performance.now() - drawnMs < REDRAW_MS) return;
        drawnMs = performance.now();
        const of = now.rowsTotal === null ? "" : ` of ${count(now.rowsTotal)}`;
        process.stderr.write(`\r\u001b[K${now.step} ${now.table}: ${count(now.rows)}${of} rows`);
      },
    });
  } finally {
    if (live) process.stderr.write("\r\u001b[K");
    process.removeListener("SIGINT", interrupt);
  }
}

/** What `--json` says of a snapshot. */
export function snapshotJson({ genesis: _, ...info }: SnapshotInfo): Readonly<Record<string, unknown>> {
  return info;
}

/** `group b3:… up to index 1,204 (2026-11-23 16:45:29), 3.1 MB, b3:…` */
export function snapshotLine({ groupId, applied, bytes, digest }: SnapshotInfo): string {
  return `group ${groupId}\n  up to index ${count(applied.index)} (${dateText(applied.timeMs)}), chain ${applied.chain}\n  ${bytesText(bytes)}, ${digest}`;
}
