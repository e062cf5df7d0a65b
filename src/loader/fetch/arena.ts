/**
 * Owns the shared memory that tiles are read into: a few large pieces, taken once and parcelled out again and again.
 *
 * Most of it is one memory of WebAssembly: its pages are taken from the system when they are first written.
 * Shared memory that is let go comes back only when every thread that saw it has collected its garbage, and no collector
 * counts it: buffers that come and go in many sizes would grow far beyond any budget. So nothing is let go before `close`.
 */
import { wasm, type WasmMemory } from "../columns/wasm.ts";

/** What parcels are rounded up to: a page of memory. */
const GRAIN_BYTES = 4096;
/** A memory of WebAssembly has at most 65,535 of its pages here, so that addresses beyond a row's end are none. */
const WASM_PAGE_BYTES = 65_536;
const MEMORY_BYTES_MAX = 65_535 * WASM_PAGE_BYTES;
/** Beside it, memory is taken from the system in pieces of this size, as it is needed. */
const PIECE_BYTES = 256 * 1024 * 1024;

export interface Parcel {
  readonly bytes: Uint8Array;
  /** Bytes that it takes of the arena. */
  readonly cost: number;
}

export interface Arena {
  /** What the first 4 GiB of parcels lie in, so that WebAssembly reaches them; null where there is none to have. */
  readonly memory: WasmMemory | null;
  /** A parcel of at least so many bytes; null when no room of this size is left in one place. */
  take(bytes: number): Parcel | null;
  give(parcel: Parcel): void;
  close(): void;
}

/** Free ranges of one piece, in order of their places; no two adjoin. */
interface Piece {
  readonly memory: SharedArrayBuffer;
  readonly free: { at: number; bytes: number }[];
}

/** What a parcel of so many bytes takes. */
export const parcelCost = (bytes: number): number => Math.max(1, Math.ceil(bytes / GRAIN_BYTES)) * GRAIN_BYTES;

/** @param bytesMax rounded down to whole grains */
export function createArena(bytesMax: number): Arena {
  let left = Math.floor(bytesMax / GRAIN_BYTES) * GRAIN_BYTES; // bytes that were not taken from the system yet
  const memory = sharedMemory(Math.min(left, MEMORY_BYTES_MAX));
  let pieces: Piece[] = [];
  if (memory) addPiece(memory.buffer);

  function takeFrom(piece: Piece, cost: number): Parcel | null {
    const i = piece.free.findIndex((range) => range.bytes >= cost); // low places first: high ones stay untouched
    const range = piece.free[i];
    if (!range) return null;
    const bytes = new Uint8Array(piece.memory as unknown as ArrayBuffer, range.at, cost);
    range.at += cost;
    range.bytes -= cost;
    if (range.bytes === 0) piece.free.splice(i, 1);
    return { bytes, cost };
  }

  function addPiece(piece: SharedArrayBuffer): Piece {
    const bytes = Math.min(piece.byteLength, left);
    left -= bytes;
    pieces.push({ memory: piece, free: [{ at: 0, bytes }] });
    return pieces.at(-1) as Piece;
  }

  return {
    memory,
    take(bytes) {
      const cost = parcelCost(bytes);
      for (const piece of pieces) {
        const parcel = takeFrom(piece, cost);
        if (parcel) return parcel;
      }
      if (cost > left) return null;
      return takeFrom(addPiece(new SharedArrayBuffer(Math.min(left, Math.max(cost, PIECE_BYTES)))), cost);
    },
    give({ bytes, cost }) {
      const piece = pieces.find(({ memory }) => (bytes.buffer as unknown) === memory);
      if (!piece) return; // the arena was closed
      const { free } = piece;
      const at = bytes.byteOffset;
      const next = free.findIndex((range) => range.at > at);
      const i = next === -1 ? free.length : next;
      free.splice(i, 0, { at, bytes: cost });
      join(free, i);
      join(free, i - 1);
    },
    close() {
      pieces = [];
      left = 0;
    },
  };
}

/** Null when the host gives no such memory, or not so much address space. */
function sharedMemory(bytes: number): WasmMemory | null {
  const pages = Math.ceil(bytes / WASM_PAGE_BYTES);
  try {
    return new wasm.Memory({ initial: pages, maximum: pages, shared: true });
  } catch {
    return null;
  }
}

/** Joins range i and the one behind it, if they adjoin. */
function join(free: { at: number; bytes: number }[], i: number): void {
  const [range, next] = [free[i], free[i + 1]];
  if (!range || !next || range.at + range.bytes !== next.at) return;
  range.bytes += next.bytes;
  free.splice(i + 1, 1);
}
