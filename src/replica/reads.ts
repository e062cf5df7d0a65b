/**
 * Owns `read`: any replica answers from its own tables, once it has applied what the caller needs.
 *
 * Nothing here is agreed on: callers check digests against a confirmed root, or use `confirm`.
 */
import type { ReadReply, ReadRequest } from "../model/api.ts";
import { ShardpactError } from "../model/errors.ts";
import type { CatalogStore } from "../storage/port.ts";
import type { Session } from "./session.ts";

/** @throws ShardpactError `timeout` when the index is not applied in time, and the store's */
export async function answerRead(session: Session, catalog: CatalogStore, request: ReadRequest): Promise<ReadReply> {
  const needed = Math.max(request.minIndex, request.asOf ?? 0);
  if (!(await session.apply.waitFor(needed, request.waitMs))) {
    const { index } = session.apply.applied();
    throw new ShardpactError("timeout", `index ${needed} was not applied within ${request.waitMs} ms; ${index} is`, {
      details: { needed, applied: index },
    });
  }
  const applied = session.apply.applied().index;
  return { ok: true, applied, answer: await catalog.query(request.query, request.asOf) };
}
