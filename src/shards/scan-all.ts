/**
 * Owns scanning many files, results in the order of the files.
 */
import type { FileThreads } from "./file-threads.ts";
import { scanShard, type ScannedShard, type ScanOptions } from "./scan.ts";

/** Files whose results may wait for one before them, for each that is under way. */
const AHEAD = 2;

/** Scans each file; yields in order, a bounded number ahead. Errors as `scanShard`; the first ends all. */
export async function* scanAll(
  files: readonly { readonly path: string }[],
  threads: FileThreads | null,
  options: ScanOptions,
): AsyncGenerator<ScannedShard> {
  if (threads === null) {
    for (const { path } of files) yield await scanShard(path, options);
    return;
  }
  const underWay: Promise<ScannedShard>[] = [];
  for (const { path } of files) {
    const scan = threads.scan(path, options.onBytes);
    scan.catch(() => undefined); // told when its turn comes
    underWay.push(scan);
    if (underWay.length >= threads.calls * AHEAD) yield await (underWay.shift() as Promise<ScannedShard>);
  }
  for (const scan of underWay) yield await scan;
}
