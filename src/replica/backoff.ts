/**
 * Owns how long a replica waits before it boots its store again.
 *
 * After a life that lasted it tries at once. One that failed soon after its boot has not shown that its database is well (a
 * full disk takes small writes for a while): then it waits first, longer each time.
 */
const MS_MIN = 50;
const MS_MAX = 1_000;
const LASTING_MS = 3_000;

export interface Backoff {
  booted(): void;
  /** Before the first try. */
  first(): number;
  /** After one that failed, which had waited this long. */
  next(waitedMs: number): number;
}

export function createBackoff(monotonicMs: () => number): Backoff {
  let bootedMs = -Infinity;
  let hastyMs = MS_MIN;
  return {
    booted() {
      bootedMs = monotonicMs();
    },
    first() {
      const hasty = monotonicMs() - bootedMs < LASTING_MS;
      hastyMs = hasty ? Math.min(hastyMs * 2, MS_MAX) : MS_MIN;
      return hasty ? hastyMs : 0;
    },
    next: (waitedMs) => (waitedMs === 0 ? MS_MIN : Math.min(waitedMs * 2, MS_MAX)),
  };
}
