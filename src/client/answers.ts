/**
 * Owns reading catalog answers as they come over the wire: validated by zod, `not_found` turned into its error.
 */
import { z } from "zod";
import {
  digest,
  errorReply,
  manifestEntry,
  versionAnswer,
  type CatalogQuery,
  type VersionAnswer,
} from "../model/api.ts";
import { ShardpactError } from "../model/errors.ts";
import { formatRef } from "../model/names.ts";

/** One hash for each one bit of a page count. */
const FRONTIER_MAX = 32;
const row = z.record(z.string(), z.unknown());
export type AnswerRow = Readonly<Record<string, unknown>>;

const catalogAnswer = z.discriminatedUnion("kind", [
  z.object({ kind: z.literal("version"), version: versionAnswer }),
  z.object({ kind: z.literal("pages"), entries: z.array(manifestEntry) }),
  z.object({
    kind: z.literal("leaves"),
    frontier: z.array(digest).max(FRONTIER_MAX),
    leaves: z.instanceof(Uint8Array),
  }),
  z.object({ kind: z.literal("object"), objectKind: z.string(), bytes: z.instanceof(Uint8Array) }),
  z.object({ kind: z.literal("rows"), rows: z.array(row) }),
  z.object({ kind: z.literal("not_found"), what: z.string(), nearest: z.array(z.string()) }),
]);
type WireAnswer = z.infer<typeof catalogAnswer>;
export type AnswerKind = WireAnswer["kind"];
export type AnswerOf<K extends AnswerKind> = Extract<WireAnswer, { kind: K }>;

/**
 * The answer, if it has the wanted kind.
 * @throws ShardpactError `not_found` with the nearest names, `damaged` when the answer has no valid shape
 */
export function expectAnswer<K extends AnswerKind>(query: CatalogQuery, kind: K, value: unknown): AnswerOf<K> {
  return expectOneOf(query, [kind], value);
}

/** The same for a question that has several kinds of answers. */
export function expectOneOf<K extends AnswerKind>(
  query: CatalogQuery,
  kinds: readonly K[],
  value: unknown,
): AnswerOf<K> {
  const parsed = catalogAnswer.safeParse(value);
  if (!parsed.success) {
    throw new ShardpactError("damaged", `an answer to '${query.kind}' does not validate`, {
      details: { issue: parsed.error.issues[0]?.message ?? "" },
    });
  }
  if (parsed.data.kind === "not_found") throw notFound(query, parsed.data.what, parsed.data.nearest);
  if (!kinds.some((kind) => kind === parsed.data.kind)) {
    throw new ShardpactError("damaged", `an answer to '${query.kind}' is of kind '${parsed.data.kind}'`);
  }
  return parsed.data as AnswerOf<K>;
}

function notFound(query: CatalogQuery, what: string, nearest: readonly string[]): ShardpactError {
  const asked = query.kind === "resolve" ? formatRef(query.ref) : what;
  return new ShardpactError("not_found", `${asked} does not exist${what.includes(asked) ? "" : `: no ${what}`}`, {
    details: { what, nearest },
    hint: nearest.length > 0 ? `Did you mean ${nearest.join(", ")}?` : "`shardpact versions` lists what there is.",
  });
}

/** @throws ShardpactError `revoked`, with who, when and why */
export function refuseRevoked(name: string, revocation: VersionAnswer["revocation"]): void {
  if (revocation === null) return;
  const when = new Date(revocation.timeMs).toISOString();
  throw new ShardpactError("revoked", `${name} was revoked by ${revocation.actor} at ${when}: ${revocation.reason}`, {
    details: { ...revocation },
    hint: "Use a version that is not revoked; `shardpact versions` shows which are.",
  });
}

/** The error that a replica put into its reply. */
export function errorOf(reply: z.infer<typeof errorReply>): ShardpactError {
  return ShardpactError.fromJSON({
    code: reply.code,
    message: reply.message,
    ...(reply.details === undefined ? {} : { details: reply.details }),
    ...(reply.hint === undefined ? {} : { hint: reply.hint }),
  });
}
