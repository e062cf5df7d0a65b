/**
 * Owns memory for what is read beside tiles: leaves under the metadata of record batches, offsets, dictionaries. It comes
 * from the arena of the tiles, beside what the budget gives them, and is used again and again for the same reason.
 */
import { parcelCost, type Arena, type Parcel } from "./arena.ts";

export interface SideMemory {
  /** A parcel of at least so many bytes. */
  take(bytes: number): Parcel;
  give(parcel: Parcel): void;
}

/** Memory of an arena. What does not fit in there, as giant metadata, gets shared memory of its own. */
export function sideMemoryOf(arena: Arena): SideMemory {
  return {
    take: (bytes) =>
      arena.take(bytes) ?? {
        bytes: new Uint8Array(new SharedArrayBuffer(bytes) as unknown as ArrayBuffer),
        cost: parcelCost(bytes),
      },
    give: (parcel) => arena.give(parcel),
  };
}

/** Memory of the caller's thread, for the garbage collector to take. */
export const privateSideMemory: SideMemory = {
  take: (bytes) => ({ bytes: new Uint8Array(bytes), cost: parcelCost(bytes) }),
  give: () => undefined,
};
