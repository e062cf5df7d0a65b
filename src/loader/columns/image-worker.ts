/**
 * Owns the decoding worker: the entry of a thread that makes pixels of encoded images, for training threads to go on meanwhile.
 *
 * One job after the other, in the order in which they came. It holds nothing that its loader could miss.
 */
import { parentPort, workerData } from "node:worker_threads";
import { invariant } from "../../model/errors.ts";
import type { ImageJob, ImageOutcome } from "./image-job.ts";
import { decodeImages } from "./images.ts";

/** What a worker is started with. */
export interface DecoderSetup {
  /** A number for each job that may be there at a time: the id of the last one of them that nobody wants any more. */
  readonly stopped: SharedArrayBuffer;
}

export interface ToDecoder {
  /** One higher with each. */
  readonly id: number;
  readonly job: ImageJob;
  /** For the pixels. Shared, or handed over, and then handed back. */
  readonly memory: ArrayBuffer | SharedArrayBuffer;
}

export type FromDecoder =
  | { readonly kind: "ready" }
  /** `memory`: what was handed over. */
  | {
      readonly kind: "done";
      readonly id: number;
      readonly outcome: ImageOutcome;
      readonly memory: ArrayBuffer | null;
    };

invariant(parentPort, "the decoding worker runs in a thread of its own");
const port = parentPort;
const stopped = new Int32Array((workerData as DecoderSetup).stopped);
let last: Promise<void> = Promise.resolve();

async function perform({ id, job, memory }: ToDecoder): Promise<void> {
  const outcome = await decodeImages(job, memory, () => Atomics.load(stopped, id % stopped.length) === id);
  const own = memory instanceof ArrayBuffer ? memory : null;
  const message: FromDecoder = { kind: "done", id, outcome, memory: own };
  port.postMessage(message, own ? [own] : []);
}

port.on("message", (message: ToDecoder) => {
  last = last.then(() => perform(message));
});
port.postMessage({ kind: "ready" } satisfies FromDecoder);
