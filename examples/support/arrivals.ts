/**
 * Owns what has come from the other workers, for the step at hand and the next one (nobody can be further ahead): bounded
 * by two gradients a worker. No I/O.
 */
import { HEADER_BYTES_MAX, PART_BYTES, type Message } from "./exchange-messages.ts";

/** Another worker is gone, late, or brought something that must not count; the one that throws it did nothing wrong. */
export class PeerFault extends Error {
  readonly rank: number;
  constructor(rank: number, message: string, cause?: unknown) {
    super(message, { cause });
    this.rank = rank;
  }
}

interface Parcel {
  readonly bytes: Uint8Array;
  readonly parts: Set<number>;
}

interface StepArrivals {
  readonly parcels: Map<number, Parcel>;
  readonly ready: Map<number, string>;
}

export interface Arrivals {
  /** Counted from the start of the attempt. */
  readonly step: number;
  /** Set once by a message that nobody should have sent. */
  readonly fault: PeerFault | null;
  receive(header: Message, bytes: Uint8Array): void;
  hasCome(rank: number): boolean;
  /** Why a worker said that it stops. */
  leftBecause(rank: number): string | undefined;
  /** The whole contribution of a worker to the step at hand. */
  contributionOf(rank: number): Uint8Array | undefined;
  /** What it said that it holds, of all workers. */
  readyOf(rank: number): string | undefined;
  /** Goes on to the next step. */
  advance(): void;
}

/** `me` is a sender too: a second process with this rank is found out. */
export function createArrivals(
  me: { readonly rank: number; readonly process: string },
  world: number,
  gradientBytes: number,
): Arrivals {
  const processes = new Map<number, string>([[me.rank, me.process]]);
  const left = new Map<number, string>();
  const steps = new Map<number, StepArrivals>();
  let step = 0;
  let fault: PeerFault | null = null;

  function arrivalsOf(at: number): StepArrivals {
    const known = steps.get(at) ?? { parcels: new Map<number, Parcel>(), ready: new Map<number, string>() };
    steps.set(at, known);
    return known;
  }

  function receivePart({ rank, step: at, offset, total }: Extract<Message, { kind: "part" }>, bytes: Uint8Array): void {
    const { parcels } = arrivalsOf(at);
    const parcel = parcels.get(rank) ?? { bytes: new Uint8Array(total), parts: new Set() };
    const length = Math.min(PART_BYTES, parcel.bytes.byteLength - offset);
    if (total !== parcel.bytes.byteLength || offset % PART_BYTES !== 0 || bytes.byteLength !== length) {
      fault ??= new PeerFault(rank, `worker ${rank} sent parts that make no gradient`);
      return;
    }
    parcels.set(rank, parcel);
    parcel.bytes.set(bytes, offset);
    parcel.parts.add(offset);
  }

  return {
    get step() {
      return step;
    },
    get fault() {
      return fault;
    },
    receive(header, bytes) {
      const { rank, process } = header;
      if (rank >= world) return; // of another world: nobody here waits for it
      if ((processes.get(rank) ?? process) !== process) {
        fault ??= new PeerFault(rank, `two processes came as worker ${rank}`);
        return;
      }
      processes.set(rank, process);
      if (header.kind === "leave") left.set(rank, header.reason);
      if (header.kind !== "part" && header.kind !== "ready") return;
      if (header.step < step || header.step > step + 1) return; // long over, or a step that nobody can have reached
      if (header.kind === "ready") arrivalsOf(header.step).ready.set(rank, header.digest);
      else if (header.total <= gradientBytes + HEADER_BYTES_MAX) receivePart(header, bytes);
      else fault ??= new PeerFault(rank, `worker ${rank} trains another model: its gradient is too long`);
    },
    hasCome: (rank) => processes.has(rank),
    leftBecause: (rank) => left.get(rank),
    contributionOf(rank) {
      const parcel = steps.get(step)?.parcels.get(rank);
      return parcel && parcel.parts.size === Math.ceil(parcel.bytes.byteLength / PART_BYTES) ? parcel.bytes : undefined;
    },
    readyOf: (rank) => steps.get(step)?.ready.get(rank),
    advance: () => void steps.delete(step++),
  };
}
