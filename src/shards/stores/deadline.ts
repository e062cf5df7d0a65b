/**
 * Owns the deadline of one request to a remote store, its bytes included, and filling memory from an answer's body.
 */
import { LIMITS } from "../../model/limits.ts";

/**
 * Runs `work` under a signal that fires with the caller's, and at the deadline. `work` must end when it does.
 * @throws what `work` throws; `no answer within … ms` when that was because of the deadline
 */
export async function withDeadline<T>(
  signal: AbortSignal | undefined,
  work: (ending: AbortSignal) => Promise<T>,
): Promise<T> {
  const timeoutMs = LIMITS.storeRequestTimeoutMs;
  const deadline = AbortSignal.timeout(timeoutMs);
  try {
    return await work(signal ? AbortSignal.any([signal, deadline]) : deadline);
  } catch (error) {
    if (!deadline.aborted || signal?.aborted) throw error;
    throw new Error(`no answer within ${timeoutMs} ms`, { cause: error });
  }
}

/** Fills all of `target`. @throws when fewer bytes come, or more: whoever answers so did not heed the range */
export async function fillFrom(body: AsyncIterable<Uint8Array>, target: Uint8Array): Promise<void> {
  let at = 0;
  for await (const chunk of body) {
    if (at + chunk.byteLength > target.byteLength) throw new Error("more bytes came than were asked for");
    target.set(chunk, at);
    at += chunk.byteLength;
  }
  if (at < target.byteLength) throw new Error(`${at} of ${target.byteLength} bytes came`);
}
