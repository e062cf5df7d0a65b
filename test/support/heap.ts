/**
 * Owns measuring what V8's heap holds, in the process that asks.
 */
import { setFlagsFromString } from "node:v8";
import { runInNewContext } from "node:vm";

let collect: (() => void) | null = null;

/** Bytes that are held: objects, and array buffers. What nobody holds is collected before. */
export async function heldBytes(): Promise<number> {
  if (!collect) {
    setFlagsFromString("--expose-gc");
    collect = runInNewContext("gc") as () => void;
  }
  for (let i = 0; i < 3; i++) {
    collect();
    await new Promise((done) => setTimeout(done, 5)); // buffers go a turn later
  }
  const { heapUsed, arrayBuffers } = process.memoryUsage();
  return heapUsed + arrayBuffers;
}
