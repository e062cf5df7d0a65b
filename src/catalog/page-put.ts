/**
 * Owns `page.put`: a page, schema or class vocabulary enters the catalog, held until a commit refers to it.
 *
 * Content-addressed, so putting the same bytes again only extends the hold.
 */
import type { Digest } from "../model/bytes.ts";
import type { ObjectKind } from "../model/commands.ts";
import { isShardpactError, ShardpactError } from "../model/errors.ts";
import { LIMITS } from "../model/limits.ts";
import { decodeClasses } from "../merkle/classes.ts";
import { decodePage, pageTotals } from "../merkle/page.ts";
import type { PageEntry } from "../merkle/page.ts";
import { objectDigest } from "../merkle/root.ts";
import { accept } from "./rule.ts";
import type { Rule } from "./rule.ts";
import type { PageRow, ShardRow } from "./rows.ts";

export const pagePut: Rule<"page.put"> = {
  needs: ({ body }) => [{ kind: "page", digest: body.digest, withBytes: false }],

  decide(view, { body: { kind, digest }, blob, actor }, { index, timeMs }) {
    requireSize(kind, blob);
    const got = objectDigest(kind, blob);
    if (got !== digest) {
      throw new ShardpactError("invalid_argument", `a ${kind} was put as ${digest} and hashes to ${got}`, {
        details: { kind, expected: digest, got },
      });
    }
    const entries = decodeObject(kind, blob);
    const old = view.page(digest);
    const holdUntilMs = Math.max(old?.holdUntilMs ?? 0, timeMs + LIMITS.pageHoldMs);
    const page: PageRow = {
      table: "page",
      digest,
      kind,
      bytes: blob,
      totals: pageTotals(entries),
      putIndex: old?.putIndex ?? index,
      actor: old?.actor ?? actor,
      holdUntilMs,
    };
    const shards = old ? [] : entries.map((entry, ordinal) => shardRow(digest, ordinal, entry));
    return accept({ digest, holdUntilMs, present: old !== null }, page, ...shards);
  },
};

function requireSize(kind: ObjectKind, blob: Uint8Array): void {
  if (blob.byteLength === 0) throw new ShardpactError("invalid_argument", `a ${kind} of no bytes was put`);
  const bytesMax = kind === "page" ? LIMITS.pageBytesMax : LIMITS.metaBytesMax;
  if (blob.byteLength <= bytesMax) return;
  throw new ShardpactError("limit_exceeded", `a ${kind} of ${blob.byteLength} bytes; ${bytesMax} fit`, {
    details: { kind, bytes: blob.byteLength, bytesMax },
  });
}

/** The page's entries; of other kinds, none. The schema's bytes mean something only to readers of shards. */
function decodeObject(kind: ObjectKind, blob: Uint8Array): PageEntry[] {
  try {
    if (kind === "page") return decodePage(blob);
    if (kind === "classes") decodeClasses(blob);
    return [];
  } catch (error) {
    if (!isShardpactError(error, "damaged")) throw error;
    throw new ShardpactError("invalid_argument", error.message, { details: { kind } });
  }
}

function shardRow(page: Digest, ordinal: number, entry: PageEntry): ShardRow {
  return { table: "shard", page, ordinal, ...entry };
}
