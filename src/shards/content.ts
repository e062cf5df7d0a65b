/**
 * Owns looking at the bytes that a layout leaves open, piece by piece, so that a batch of any size is checked in one pass.
 *
 * Pieces of a body come in order and start at multiples of 8. Every check is a state machine over its own buffer.
 */
import { LayoutError, type ContentCheck } from "./layout.ts";
import type { BufferRegion } from "./message.ts";

/** The largest index that a batch uses of each dictionary (by id in the schema); checked once the dictionaries are known. */
export type IndexMaxima = Map<number, number>;

interface Checker {
  readonly from: number;
  readonly end: number;
  /** Bytes of the buffer in order, starting at a multiple of 8. */
  feed(bytes: Uint8Array): void;
  finish(): void;
}

export interface ContentChecker {
  /** The body's next bytes. @throws LayoutError */
  feed(bytes: Uint8Array): void;
}

/** @param maxima gets the largest index of each dictionary that is used */
export function createContentChecker(checks: readonly ContentCheck[], maxima: IndexMaxima): ContentChecker {
  const kept = new Map<number, Uint8Array>(); // validity bits by place, for checks that must skip null slots
  for (const check of checks) {
    if ((check.kind === "indices" || check.kind === "views") && check.validity) {
      if (check.validity.offset > check.from) throw new LayoutError(`column ${check.column}: validity after values`);
      kept.set(check.validity.offset, new Uint8Array(check.validity.length));
    }
  }
  const checkers = checks.map((check) => checkerOf(check, kept, maxima));
  let first = 0;
  let position = 0;
  return {
    feed(bytes) {
      const end = position + bytes.byteLength;
      for (let i = first; i < checkers.length; i += 1) {
        const checker = checkers[i];
        if (!checker || checker.from >= end) break;
        const to = Math.min(checker.end, end);
        checker.feed(bytes.subarray(Math.max(checker.from, position) - position, to - position));
        if (to === checker.end) {
          checker.finish();
          first = i + 1; // buffers don't overlap: whatever is before has ended
        }
      }
      position = end;
    },
  };
}

function checkerOf(check: ContentCheck, kept: ReadonlyMap<number, Uint8Array>, maxima: IndexMaxima): Checker {
  const range = { from: check.from, end: check.from + check.bytes };
  switch (check.kind) {
    case "validity":
      return { ...range, ...validityChecker(check, kept.get(check.from)) };
    case "offsets":
      return { ...range, ...(check.width === 4 ? offsets32(check) : offsets64(check)) };
    case "indices":
      return { ...range, ...indicesChecker(check, keptBits(check.validity, kept), maxima) };
    case "views":
      return { ...range, ...viewsChecker(check, keptBits(check.validity, kept)) };
    case "type_ids":
      return { ...range, feed: typeIdsFeed(check), finish: () => undefined };
    case "union_offsets":
      return { ...range, feed: unionOffsetsFeed(check), finish: () => undefined };
  }
}

type Feeder = Pick<Checker, "feed" | "finish">;
type Check<K extends ContentCheck["kind"]> = Extract<ContentCheck, { kind: K }>;

const ONES = Uint8Array.from({ length: 256 }, (_, byte) => byte.toString(2).replaceAll("0", "").length);

function validityChecker(check: Check<"validity">, keep: Uint8Array | undefined): Feeder {
  let valid = 0;
  let at = 0;
  return {
    feed(bytes) {
      keep?.set(bytes, at);
      at += bytes.byteLength;
      for (let i = 0; i < bytes.length; i += 1) valid += ONES[bytes[i] as number] as number;
      const spare = check.length % 8;
      if (at === check.bytes && spare !== 0) {
        const last = bytes[bytes.length - 1] as number;
        valid -= ONES[last >> spare] as number; // bits beyond the last row don't count
      }
    },
    finish() {
      const nulls = check.length - valid;
      if (nulls === check.nullCount) return;
      throw new LayoutError(`column ${check.column}: declares ${check.nullCount} nulls and has ${nulls}`);
    },
  };
}

function offsets32(check: Check<"offsets">): Feeder {
  let last = 0;
  return {
    feed(bytes) {
      const values = new Int32Array(bytes.buffer, bytes.byteOffset, bytes.byteLength / 4);
      for (let i = 0; i < values.length; i += 1) {
        const value = values[i] as number;
        if (value < last) throw new LayoutError(`column ${check.column}: an offset falls from ${last} to ${value}`);
        last = value;
      }
    },
    finish: () => offsetsEnd(check, last),
  };
}

function offsets64(check: Check<"offsets">): Feeder {
  let last = 0;
  return {
    feed(bytes) {
      const words = new Uint32Array(bytes.buffer, bytes.byteOffset, bytes.byteLength / 4);
      for (let i = 0; i < words.length; i += 2) {
        const value = (words[i + 1] as number) * 0x1_0000_0000 + (words[i] as number);
        if (value < last) throw new LayoutError(`column ${check.column}: an offset falls from ${last} to ${value}`);
        last = value;
      }
    },
    finish: () => offsetsEnd(check, last),
  };
}

function offsetsEnd({ column, limit }: Check<"offsets">, last: number): void {
  if (last > limit) throw new LayoutError(`column ${column}: an offset of ${last} where ${limit} are there`);
}

function indicesChecker(check: Check<"indices">, bits: Uint8Array | null, maxima: IndexMaxima): Feeder {
  let max = -1;
  let row = 0;
  return {
    feed(bytes) {
      const values = integersOf(bytes, check.width, check.signed);
      for (let i = 0; i < values.length; i += 1, row += 1) {
        if (bits && ((bits[row >> 3] as number) & (1 << (row & 7))) === 0) continue;
        const value = Number(values[i]);
        if (value < 0) throw new LayoutError(`column ${check.column}: a negative dictionary index (row ${row})`);
        if (value > max) max = value;
      }
    },
    finish() {
      if (max > (maxima.get(check.dictionary) ?? -1)) maxima.set(check.dictionary, max);
    },
  };
}

function integersOf(bytes: Uint8Array, width: number, signed: boolean): ArrayLike<number | bigint> {
  const { buffer, byteOffset, byteLength } = bytes;
  const count = byteLength / width;
  switch (width) {
    case 1:
      return signed ? new Int8Array(buffer, byteOffset, count) : bytes;
    case 2:
      return signed ? new Int16Array(buffer, byteOffset, count) : new Uint16Array(buffer, byteOffset, count);
    case 4:
      return signed ? new Int32Array(buffer, byteOffset, count) : new Uint32Array(buffer, byteOffset, count);
    default:
      return signed ? new BigInt64Array(buffer, byteOffset, count) : new BigUint64Array(buffer, byteOffset, count);
  }
}

/** A view is 16 bytes: i32 length · up to 12 bytes in place, or prefix · i32 buffer · i32 offset. Halves may come apart. */
function viewsChecker(check: Check<"views">, bits: Uint8Array | null): Feeder {
  let half = 0;
  let length = 0;
  const fail = (reason: string) => new LayoutError(`column ${check.column}: row ${Math.floor(half / 2)}: ${reason}`);
  return {
    feed(bytes) {
      const words = new Int32Array(bytes.buffer, bytes.byteOffset, bytes.byteLength / 4);
      for (let i = 0; i < words.length; i += 2, half += 1) {
        const row = Math.floor(half / 2);
        if (bits && ((bits[row >> 3] as number) & (1 << (row & 7))) === 0) continue;
        if (half % 2 === 0) {
          length = words[i] as number;
          if (length < 0) throw fail("a negative length");
        } else if (length > 12) {
          const there = check.buffers[words[i] as number];
          const offset = words[i + 1] as number;
          if (there === undefined || offset < 0 || offset + length > there)
            throw fail("a view points outside its buffer");
        }
      }
    },
    finish: () => undefined,
  };
}

function typeIdsFeed({ column, allowed }: Check<"type_ids">): (bytes: Uint8Array) => void {
  const known = new Uint8Array(256);
  for (const id of allowed) known[id & 0xff] = 1;
  return (bytes) => {
    for (let i = 0; i < bytes.length; i += 1) {
      if (known[bytes[i] as number] === 0) throw new LayoutError(`column ${column}: an unknown union type id`);
    }
  };
}

function unionOffsetsFeed({ column, limit }: Check<"union_offsets">): (bytes: Uint8Array) => void {
  return (bytes) => {
    const values = new Int32Array(bytes.buffer, bytes.byteOffset, bytes.byteLength / 4);
    for (let i = 0; i < values.length; i += 1) {
      const value = values[i] as number;
      if (value < 0 || value >= limit)
        throw new LayoutError(`column ${column}: a union offset of ${value} of ${limit}`);
    }
  };
}

function keptBits(validity: BufferRegion | null, kept: ReadonlyMap<number, Uint8Array>): Uint8Array | null {
  return validity ? (kept.get(validity.offset) ?? null) : null;
}
