/**
 * Owns the scanning thread: the entry of a thread that scans one file at a time and tells what it found.
 */
import { parentPort } from "node:worker_threads";
import { invariant, toShardpactError } from "../model/errors.ts";
import { scanShard } from "./scan.ts";
import type { ScanAnswer, ScanCall } from "./scan-pool.ts";

invariant(parentPort, "the scanning worker runs in a thread of its own");
const port = parentPort;
const answer = (message: ScanAnswer): void => port.postMessage(message);

port.on("message", ({ path }: ScanCall) => {
  scanShard(path, { onBytes: (bytes) => answer({ kind: "bytes", bytes }) }).then(
    (scanned) => answer({ kind: "scanned", scanned }),
    (error: unknown) => {
      const { code, message, details, hint } = toShardpactError(error);
      answer({ kind: "failed", code, message, details, hint });
    },
  );
});
