/**
 * Owns comparing what the same log came to: at every 1,024th index replicas tell each other the chained digest of all
 * changes that their applies made. Equal logs that led to unequal tables are found, and the minority knows that it is one.
 *
 * The chain (`AppliedPoint`) tells whether two replicas applied the same; this tells whether it did the same to both.
 */
import { z } from "zod";
import type { AppliedState } from "../catalog/apply.ts";
import type { LogIndex, ReplicaId } from "../consensus/engine.ts";
import { decodeApi, encodeApi } from "../model/api.ts";

export const DIGEST_EVERY = 1_024;
/** Indexes that are remembered: a replica that lags further is compared at later ones. */
const INDEXES_KEPT = 16;

const hex = z.string().regex(/^[0-9a-f]{64}$/);
const toldBody = z.object({ index: z.number().int().positive(), chain: hex, stateDigest: hex });
type Told = z.infer<typeof toldBody>;

export interface StateDigests {
  /** Call after every apply. */
  applied(state: AppliedState): void;
  receive(from: ReplicaId, body: Uint8Array): void;
}

export interface StateDigestsOptions {
  readonly self: ReplicaId;
  voters(): readonly ReplicaId[];
  /** To all others. */
  tell(body: Uint8Array): void;
  /** A majority of the voters came to other rows from the same log. */
  onMinority(reason: string): void;
}

export function createStateDigests({ self, voters, tell, onMinority }: StateDigestsOptions): StateDigests {
  const told = new Map<LogIndex, Map<ReplicaId, Told>>();

  function take(from: ReplicaId, point: Told): void {
    const at = told.get(point.index) ?? new Map<ReplicaId, Told>();
    at.set(from, point);
    told.set(point.index, at);
    if (told.size > INDEXES_KEPT) told.delete(Math.min(...told.keys()));
    judge(at);
  }

  function judge(at: ReadonlyMap<ReplicaId, Told>): void {
    const own = at.get(self);
    if (!own) return;
    const all = voters();
    const others = all.flatMap((id) => at.get(id) ?? []).filter(({ chain }) => chain === own.chain);
    for (const { stateDigest } of others) {
      if (stateDigest === own.stateDigest) continue;
      const holding = others.filter((point) => point.stateDigest === stateDigest).length;
      if (holding * 2 <= all.length) continue;
      return onMinority(
        `at index ${own.index} ${holding} of ${all.length} voters came to other rows from the same log (state digest ` +
          `${stateDigest.slice(0, 16)}…, here ${own.stateDigest.slice(0, 16)}…)`,
      );
    }
  }

  return {
    applied({ index, chain, stateDigest }) {
      if (index === 0 || index % DIGEST_EVERY !== 0) return;
      tell(encodeApi({ index, chain, stateDigest } satisfies Told));
      take(self, { index, chain, stateDigest });
    },
    receive(from, body) {
      try {
        const point = decodeApi(toldBody, body);
        if (point.index % DIGEST_EVERY === 0) take(from, point);
      } catch {
        // Malformed: lost, as on any bad link.
      }
    },
  };
}
