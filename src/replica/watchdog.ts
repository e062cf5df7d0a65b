/**
 * Owns the reasons for which a leader gives up by itself: a stuck disk, a stalled event loop, a clock that is off.
 *
 * Such a leader still sends heartbeats, so nobody else would replace it, and nothing would be committed.
 */
import type { Runtime } from "./runtime.ts";

/** A leader's clock may differ by this much from the median of the voters'. It stamps the log. */
export const CLOCK_OFFSET_MS_MAX = 5_000;
const CLOCK_WINDOW_MS = 5_000;
const CLOCK_CHECK_EVERY_MS = 1_000;

export interface Watchdog {
  /** Call on every tick, before the engine's. */
  tick(): void;
}

export interface WatchdogOptions {
  readonly tickMs: number;
  readonly electionMaxMs: number;
  readonly runtime: Runtime;
  oldestWriteMs(): number;
  clockOffsetsMs(windowMs: number): readonly number[];
  /** Does nothing unless this replica leads. */
  stepDown(reason: string): void;
}

export function createWatchdog(options: WatchdogOptions): Watchdog {
  const { tickMs, electionMaxMs, runtime } = options;
  let lastTickMs = runtime.monotonicMs();
  let clockCheckedMs = lastTickMs;

  return {
    tick() {
      const nowMs = runtime.monotonicMs();
      const lateMs = nowMs - lastTickMs - tickMs;
      lastTickMs = nowMs;
      if (lateMs > electionMaxMs) options.stepDown(`the event loop stood still for ${Math.round(lateMs)} ms`);
      const writeMs = options.oldestWriteMs();
      if (writeMs > electionMaxMs) options.stepDown(`a log write has not returned for ${Math.round(writeMs)} ms`);
      if (nowMs - clockCheckedMs < CLOCK_CHECK_EVERY_MS) return;
      clockCheckedMs = nowMs;
      const offMs = medianOffsetMs(options.clockOffsetsMs(CLOCK_WINDOW_MS));
      if (Math.abs(offMs) > CLOCK_OFFSET_MS_MAX) {
        options.stepDown(
          `its clock is ${Math.round(Math.abs(offMs))} ms ${offMs > 0 ? "behind" : "ahead of"} the voters' median`,
        );
      }
    },
  };
}

/** Median of all clocks minus ours; our own offset is 0. */
function medianOffsetMs(others: readonly number[]): number {
  const offsets = [0, ...others].sort((a, b) => a - b);
  const middle = offsets.length >> 1;
  const upper = offsets[middle] ?? 0;
  return offsets.length % 2 === 1 ? upper : ((offsets[middle - 1] ?? 0) + upper) / 2;
}
