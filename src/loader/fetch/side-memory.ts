/**
 * Owns memory for what is read beside tiles: leaves under the metadata of record batches, offsets, dictionaries. It is used
 * again and again, like the arena of the tiles and for the same reason.
 */
import { createArena, parcelCost, type Parcel } from "./arena.ts";

export interface SideMemory {
  /** A parcel of at least so many bytes. */
  take(bytes: number): Parcel;
  give(parcel: Parcel): void;
}

/** Memory that threads share. What does not fit in `bytesMax` at a time, as giant metadata, gets memory of its own. */
export function createSharedSideMemory(bytesMax: number): SideMemory {
  const arena = createArena(bytesMax);
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
