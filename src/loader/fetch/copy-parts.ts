/**
 * Owns copying parts of a verified segment: which leaves cover them, and how their bytes get to their places.
 *
 * A part that is made of whole leaves is read where it belongs. Others come through a scratch buffer, a few leaves at a
 * time, so that no byte beside the parts is kept.
 */
import { LIMITS } from "../../model/limits.ts";
import type { ShardReader } from "../../shards/reader.ts";
import type { Part } from "./reads.ts";

/** Leaves that go through the scratch buffer at a time. */
const SCRATCH_LEAVES = 16;

/** Consecutive leaves [first, end) of a segment, and the parts that lie in them. */
export interface LeafRun {
  readonly first: number;
  readonly end: number;
  readonly parts: readonly Part[];
}

/** The leaves that cover the parts, in order: parts that share or adjoin a leaf share a run. Empty parts need none. */
export function leafRuns(parts: readonly Part[]): readonly LeafRun[] {
  const runs: { first: number; end: number; parts: Part[] }[] = [];
  for (const part of parts) {
    if (part.from === part.to) continue;
    const first = Math.floor(part.from / LIMITS.leafBytes);
    const end = Math.ceil(part.to / LIMITS.leafBytes);
    const last = runs.at(-1);
    if (last && first <= last.end) {
      last.end = Math.max(last.end, end);
      last.parts.push(part);
    } else runs.push({ first, end, parts: [part] });
  }
  return runs;
}

/** Leaves that the parts need. */
export function countLeaves(parts: readonly Part[]): number {
  return leafRuns(parts).reduce((sum, run) => sum + run.end - run.first, 0);
}

/** Scratch buffers that are not in use; one read at a time uses one. */
export type Scratch = Uint8Array[];

/** Reads the parts' leaves, verified, and puts the parts to their places. Resolves with the bytes of the leaves. */
export async function copyParts(
  reader: ShardReader,
  segment: number,
  parts: readonly Part[],
  target: Uint8Array,
  scratch: Scratch,
): Promise<number> {
  const segmentBytes = reader.index.segments[segment]?.bytes ?? 0;
  let bytes = 0;
  for (const run of leafRuns(parts)) {
    const from = run.first * LIMITS.leafBytes;
    const to = Math.min(run.end * LIMITS.leafBytes, segmentBytes);
    const [only] = run.parts;
    if (run.parts.length === 1 && only?.from === from && only.to === to) {
      await reader.readLeaves(segment, run.first, run.end, target.subarray(only.at, only.at + to - from));
    } else await throughScratch(reader, segment, run, target, scratch);
    bytes += to - from;
  }
  return bytes;
}

async function throughScratch(
  reader: ShardReader,
  segment: number,
  run: LeafRun,
  target: Uint8Array,
  scratch: Scratch,
): Promise<void> {
  const buffer = scratch.pop() ?? new Uint8Array(SCRATCH_LEAVES * LIMITS.leafBytes);
  try {
    for (let first = run.first; first < run.end; first += SCRATCH_LEAVES) {
      const end = Math.min(first + SCRATCH_LEAVES, run.end);
      const bytes = await reader.readLeaves(segment, first, end, buffer);
      const start = first * LIMITS.leafBytes;
      for (const { from, to, at } of run.parts) {
        const begin = Math.max(from, start);
        const stop = Math.min(to, start + bytes.byteLength);
        if (begin < stop) target.set(bytes.subarray(begin - start, stop - start), at + begin - from);
      }
    }
  } finally {
    scratch.push(buffer);
  }
}
