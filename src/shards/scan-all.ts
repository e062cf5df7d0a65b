/**
 * Owns scanning many files, results in the order of the files.
 */
import { bytesEqual } from "../model/bytes.ts";
import type { FileThreads } from "./file-threads.ts";
import { checkSchema } from "./scan.ts";
import { scanFile, type ScannedShard, type ScanOptions } from "./scan-file.ts";

/** Files whose results may wait for one before them, for each that is under way. */
const AHEAD = 2;

/** Scans each file; yields in order, a bounded number ahead. Errors as `scanShard`; the first ends all. */
export async function* scanAll(
  files: readonly { readonly path: string }[],
  threads: FileThreads | null,
  options: ScanOptions,
): AsyncGenerator<ScannedShard> {
  let known: Uint8Array | null = null; // most files have the schema of the one before
  const checked = (path: string, scanned: ScannedShard): ScannedShard => {
    if (!known || !bytesEqual(known, scanned.schema)) checkSchema(path, scanned);
    known = scanned.schema;
    return scanned;
  };
  if (threads === null) {
    for (const { path } of files) yield checked(path, await scanFile(path, options));
    return;
  }
  const underWay: { readonly path: string; readonly scan: Promise<ScannedShard> }[] = [];
  for (const { path } of files) {
    const scan = threads.scan(path, options.onBytes);
    scan.catch(() => undefined); // told when its turn comes
    underWay.push({ path, scan });
    const first = underWay.length >= threads.calls * AHEAD ? underWay.shift() : undefined;
    if (first) yield checked(first.path, await first.scan);
  }
  for (const { path, scan } of underWay) yield checked(path, await scan);
}
