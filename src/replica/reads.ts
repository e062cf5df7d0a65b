/**
 * Owns `read`: any replica answers from its own tables, once it has applied what the caller needs, and says how old the
 * answer may be.
 *
 * It is one replica's word: callers check digests against a confirmed root, or use `confirm`, which a majority signs.
 */
import type { ReadConsistency, ReadReply, ReadRequest } from "../model/api.ts";
import { ShardpactError, toShardpactError } from "../model/errors.ts";
import type { CatalogStore } from "../storage/port.ts";
import type { ReadPoint } from "./read-index.ts";
import type { Session } from "./session.ts";

/**
 * @throws ShardpactError `timeout` when the index is not applied in time, `unavailable` when the group does not confirm
 * how far it is in time or the answer would be older than allowed, and the store's
 */
export async function answerRead(session: Session, catalog: CatalogStore, request: ReadRequest): Promise<ReadReply> {
  session.assertSound();
  const untilMs = session.monotonicMs() + request.waitMs;
  const point = await pointFor(session, request.consistency ?? { kind: "any" }, request.waitMs);
  const needed = Math.max(request.minIndex, request.asOf ?? 0, point?.index ?? 0);
  if (!(await session.apply.waitFor(needed, Math.max(0, untilMs - session.monotonicMs())))) {
    const { index } = session.apply.applied();
    throw new ShardpactError("timeout", `index ${needed} was not applied within ${request.waitMs} ms; ${index} is`, {
      details: { needed, applied: index },
    });
  }
  const applied = session.apply.applied().index;
  const answer = await catalog.query(request.query, request.asOf);
  // Measured when it leaves: a pause of this process, however long, is part of the answer's age.
  const ageMs = point === null ? null : session.monotonicMs() - point.askedMs;
  if (request.consistency?.kind === "bounded" && ageMs !== null) refuseStale(request.consistency, ageMs, applied, null);
  return { ok: true, applied, ageMs, answer };
}

async function pointFor(session: Session, consistency: ReadConsistency, waitMs: number): Promise<ReadPoint | null> {
  if (consistency.kind === "any") return null;
  if (consistency.kind === "linearizable") return await session.readIndex.fetch(waitMs);
  const applied = session.apply.applied().index;
  const known = session.readIndex.newest(applied);
  const ageMs = known === null ? null : session.monotonicMs() - known.askedMs;
  if (ageMs !== null && ageMs <= consistency.ageMsMax) return known;
  try {
    return await session.readIndex.fetch(waitMs);
  } catch (error) {
    refuseStale(consistency, ageMs, applied, error);
    throw error;
  }
}

/** @throws ShardpactError `unavailable` unless the age is known and within the bound */
function refuseStale({ ageMsMax }: { readonly ageMsMax: number }, ageMs: number | null, index: number, cause: unknown) {
  if (ageMs !== null && ageMs <= ageMsMax) return;
  const age = ageMs === null ? "of unknown age" : `${Math.ceil(ageMs)} ms old`;
  throw new ShardpactError(
    "unavailable",
    `what this replica holds is too stale: ${age}, at most ${ageMsMax} ms is wanted`,
    {
      details: { ageMs, ageMsMax, index },
      hint: "Ask another replica, allow more, or read with `any`.",
      ...(cause === null ? {} : { cause: toShardpactError(cause) }),
    },
  );
}
