/**
 * Owns memory for what is read beside tiles: leaves under the metadata of record batches, offsets, dictionaries. It comes
 * from the arena of the tiles, beside what the budget gives them, and is used again and again for the same reason.
 *
 * Most of what is read beside tiles fits a leaf, so this memory is taken once and dealt in leaves: no tile can leave it in
 * pieces that are too small. Who reads beside tiles does so a few at a time (`SIDE_LEAVES`).
 */
import { LIMITS } from "../../model/limits.ts";
import { parcelCost, type Arena, type Parcel } from "./arena.ts";

/** Batches of which the leaves under the metadata are kept for a while. */
export const HEADS_MAX = 16;
/** Shards that are opened, and batches whose metadata or offsets are looked at, at a time, before tiles are read. */
export const LOADS_MAX = 32;
/** Leaves for those, and for as many tiles as are read at a time. */
const SIDE_LEAVES = HEADS_MAX + LOADS_MAX + 16;
export const SIDE_BYTES = SIDE_LEAVES * LIMITS.leafBytes;

export interface SideMemory {
  /** A parcel of at least so many bytes. */
  take(bytes: number): Parcel;
  give(parcel: Parcel): void;
}

/** SIDE_BYTES of an arena. What does not fit in a leaf, as giant metadata, lies elsewhere in it, or in shared memory of its own. */
export function sideMemoryOf(arena: Arena): SideMemory {
  const place = arena.take(SIDE_BYTES);
  const all = new Set<Parcel>();
  for (let at = 0; place && at < SIDE_BYTES; at += LIMITS.leafBytes) {
    all.add({ bytes: place.bytes.subarray(at, at + LIMITS.leafBytes), cost: LIMITS.leafBytes });
  }
  const free = [...all];
  return {
    take: (bytes) =>
      (bytes <= LIMITS.leafBytes ? free.pop() : null) ??
      arena.take(bytes) ?? {
        bytes: new Uint8Array(new SharedArrayBuffer(bytes) as unknown as ArrayBuffer),
        cost: parcelCost(bytes),
      },
    give: (parcel) => (all.has(parcel) ? void free.push(parcel) : arena.give(parcel)),
  };
}

/** Memory of the caller's thread, for the garbage collector to take. */
export const privateSideMemory: SideMemory = {
  take: (bytes) => ({ bytes: new Uint8Array(bytes), cost: parcelCost(bytes) }),
  give: () => undefined,
};
