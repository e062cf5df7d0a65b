/**
 * Owns what clients and replicas say to each other: queries, answers, confirmations, status.
 *
 * Subjects: `shardpact.discover` (every replica answers), `shardpact.<group>.api.<replica>.<verb>`.
 * Encoding: msgpack (`encodeApi`), checked by zod where it comes in; the part of a confirmation that must be equal on
 * a majority is canonical JSON, so that equal answers are equal bytes.
 */
import { Packr } from "msgpackr";
import { z } from "zod";
import type { Digest } from "./bytes.ts";
import { ShardpactError } from "./errors.ts";
import { genesis, memberInfo } from "./group.ts";
import { LIMITS } from "./limits.ts";
import { datasetName, ref, runId } from "./names.ts";

export { genesis, memberInfo, type Genesis, type MemberInfo } from "./group.ts";

export const digest = z.templateLiteral(["b3:", z.string().regex(/^[0-9a-f]{64}$/)]);
const count = z.number().int().nonnegative();
const limit = z.number().int().positive().max(LIMITS.apiRowsMax);

/** A read of the catalog. List queries page by `after` (exclusive) and `limit`. */
export const catalogQuery = z.discriminatedUnion("kind", [
  /** One version: by head, number, tag or root. */
  z.object({ kind: z.literal("resolve"), ref }),
  /**
   * Manifest entries of a version from a page position on. `packed`: as leaves, with the frontier before them; a replica of an
   * older release does not know the word and answers entries.
   */
  z.object({
    kind: z.literal("pages"),
    dataset: datasetName,
    version: count,
    from: count,
    limit,
    packed: z.literal(true).optional(),
  }),
  /** The bytes of a page, schema or class vocabulary. */
  z.object({ kind: z.literal("object"), digest }),
  z.object({ kind: z.literal("datasets"), after: z.string(), limit }),
  z.object({ kind: z.literal("versions"), dataset: datasetName, after: count, limit }),
  z.object({ kind: z.literal("tags"), dataset: datasetName }),
  z.object({ kind: z.literal("tag_history"), dataset: datasetName, after: count, limit }),
  /** A run, and its newest receipts as far as they fit. */
  z.object({ kind: z.literal("run"), run: runId }),
  /** All receipts of a run, by index, as many at a time as fit: ask on until none comes. */
  z.object({ kind: z.literal("receipts"), run: runId, after: count }),
  /** What a run that follows agreed on, epoch by epoch; -1 is before the first. */
  z.object({ kind: z.literal("run_epochs"), run: runId, after: z.number().int().min(-1), limit }),
  z.object({ kind: z.literal("runs"), dataset: datasetName.nullable(), after: z.string(), limit }),
  z.object({ kind: z.literal("pins"), dataset: datasetName.nullable(), run: runId.nullable() }),
  z.object({ kind: z.literal("revocations"), dataset: datasetName }),
  /** Which of these shard file digests are revoked. */
  z.object({ kind: z.literal("revoked_shards"), digests: z.array(digest).max(LIMITS.apiRowsMax) }),
  /** Revocations of whatever version or shard, by index. */
  z.object({ kind: z.literal("revocations_since"), after: count, limit }),
  z.object({ kind: z.literal("ledger"), after: count, limit }),
  /** Configurations and the signatures under them, by index: what `merkle/certificate.ts` proves. */
  z.object({ kind: z.literal("configurations"), after: count, limit }),
  /** The recorded outcome of a command id. */
  z.object({ kind: z.literal("outcome"), commandId: z.string() }),
]);
export type CatalogQuery = z.infer<typeof catalogQuery>;
export type QueryKind = CatalogQuery["kind"];

const totals = z.object({ split: count, rows: count, bytes: count, shards: count });
export type TotalsAnswer = z.infer<typeof totals>;

export const revocationAnswer = z.object({
  subject: z.string(),
  index: count,
  timeMs: count,
  actor: z.string(),
  reason: z.string(),
});
export type RevocationAnswer = z.infer<typeof revocationAnswer>;

/** All that the root covers, and what is told beside it. */
export const versionAnswer = z.object({
  dataset: z.string(),
  version: count,
  root: digest,
  index: count,
  timeMs: count,
  actor: z.string(),
  message: z.string(),
  treeHash: digest,
  pageCount: count,
  schema: digest,
  classes: digest,
  splits: z.array(z.string()),
  totals: z.array(totals),
  splitRule: z.unknown(),
  revocation: revocationAnswer.nullable(),
});
export type VersionAnswer = z.infer<typeof versionAnswer>;

/** One manifest entry: what a leaf of the root's tree covers. */
export const manifestEntry = z.object({ page: digest, totals: z.array(totals) });
export type ManifestEntryAnswer = z.infer<typeof manifestEntry>;

/** What a store answers. `rows` are JSON rows of list queries, sorted by key; their shape is the catalog row's. */
export type CatalogAnswer =
  | { readonly kind: "version"; readonly version: VersionAnswer }
  | { readonly kind: "pages"; readonly entries: readonly ManifestEntryAnswer[] }
  /** `frontier`: of the tree over the leaves before these; `leaves`: `packLeaves`. */
  | { readonly kind: "leaves"; readonly frontier: readonly Digest[]; readonly leaves: Uint8Array }
  | { readonly kind: "object"; readonly objectKind: string; readonly bytes: Uint8Array }
  | { readonly kind: "rows"; readonly rows: readonly Readonly<Record<string, unknown>>[] }
  | { readonly kind: "not_found"; readonly what: string; readonly nearest: readonly string[] };

export const discoverReply = z.object({
  group: z.string(),
  groupId: z.string(),
  replica: z.string(),
  leader: z.string().nullable(),
  genesis,
  /** Where this replica says shard bytes may be found; hints, never trusted. */
  stores: z.array(z.string()),
  /** Number and voters' count of the newest configuration that this replica knows; a hint too. */
  configuration: z.object({ number: count, voters: count }).optional(),
});
export type DiscoverReply = z.infer<typeof discoverReply>;

/** `confirm`: sent to the leader, which fixes R and forwards it with `term` and `index` to the other voters. */
export const confirmRequest = z.object({
  nonce: z.string().regex(/^[0-9a-f]{32}$/),
  query: catalogQuery,
  /** Inbox of the client: every voter answers there directly. */
  answerTo: z.string(),
  /** How long voters may wait to apply R. */
  waitMs: z.number().int().positive().max(60_000),
});
export type ConfirmRequest = z.infer<typeof confirmRequest>;

/** What a majority must say in equal bytes (canonical JSON of this object). */
export const agreedPart = z.object({
  nonce: z.string(),
  groupId: z.string(),
  term: count,
  index: count,
  chain: z.string(),
  /** Configuration as of `index`: the newest `config` entry at or below it. The digest of the first is the group id. */
  configuration: z.object({ index: count, number: count, digest }),
  voters: z.array(memberInfo),
  votersOutgoing: z.array(memberInfo),
  answer: z.unknown(),
});
export type AgreedPart = z.infer<typeof agreedPart>;

/** One voter's signed answer. Signature: Ed25519 over hashAs("answer", agreed ‖ own). */
export const confirmAnswer = z.object({
  agreed: z.instanceof(Uint8Array),
  /** UTF-8 JSON of `ownPart`. */
  own: z.instanceof(Uint8Array),
  signature: z.instanceof(Uint8Array),
});
export type ConfirmAnswer = z.infer<typeof confirmAnswer>;

export const ownPart = z.object({
  replica: z.string(),
  boot: count,
  applied: count,
  /** A revocation of what was asked for, committed after `index`, that this voter already knows. */
  laterRevocation: revocationAnswer.nullable(),
});
export type OwnPart = z.infer<typeof ownPart>;

export const errorReply = z.object({
  code: z.string(),
  message: z.string(),
  details: z.record(z.string(), z.unknown()).optional(),
  hint: z.string().optional(),
});

/** `propose` (request: bytes of `encodeCommand`). `index`: where the first effect stands; `retry`: it was applied before. */
export const proposeReply = z.union([
  z.object({ ok: z.literal(true), index: count, retry: z.boolean(), result: z.record(z.string(), z.unknown()) }),
  z.object({ ok: z.literal(false), error: errorReply, leader: z.string().nullable(), index: count.nullable() }),
]);
export type ProposeReply = z.infer<typeof proposeReply>;

/**
 * How fresh an answer must be. `any`: whatever this replica has applied. `linearizable`: it holds all that was acknowledged
 * before the question. `bounded`: all that was acknowledged more than `ageMsMax` before the answer.
 */
export const readConsistency = z.discriminatedUnion("kind", [
  z.object({ kind: z.literal("any") }),
  z.object({ kind: z.literal("linearizable") }),
  z.object({ kind: z.literal("bounded"), ageMsMax: z.number().int().positive() }),
]);
export type ReadConsistency = z.infer<typeof readConsistency>;

/** `read`: any replica answers from its own tables (as of `asOf`, once applied ≥ `minIndex`); callers verify digests. */
export const readRequest = z.object({
  query: catalogQuery,
  asOf: count.nullable(),
  minIndex: count,
  waitMs: count,
  /** `any` when left out. */
  consistency: readConsistency.optional(),
});
export type ReadRequest = z.infer<typeof readRequest>;
export const readReply = z.union([
  z.object({
    ok: z.literal(true),
    /** What the answer holds at least: the index that was applied before the read. */
    applied: count,
    /** All that was acknowledged longer than this before the answer left is in it; null: nobody asked (`any`). */
    ageMs: z.number().nonnegative().nullable().optional(),
    answer: z.unknown(),
  }),
  z.object({ ok: z.literal(false), error: errorReply, leader: z.string().nullable() }),
]);
export type ReadReply = z.infer<typeof readReply>;

/** A configuration in a status. `applied`: it is committed, applied here, and in force. */
export const configurationStatus = z.object({
  number: count,
  digest,
  voters: z.array(memberInfo),
  votersOutgoing: z.array(memberInfo),
  learners: z.array(memberInfo),
  applied: z.boolean(),
});
export type ConfigurationStatus = z.infer<typeof configurationStatus>;

/** `status`: for people and for tests. */
export const replicaStatus = z.object({
  group: z.string(),
  groupId: z.string(),
  replica: z.string(),
  incarnation: z.string(),
  boot: count,
  state: z.enum(["starting", "running", "recovering", "non_voting", "removed", "halted", "closed"]),
  role: z.string(),
  /** What the configuration in force lets it do, and that configuration; null while nothing runs. */
  member: z.enum(["voter", "learner", "none"]),
  configuration: configurationStatus.nullable(),
  leader: z.string().nullable(),
  term: count,
  commit: count,
  lastIndex: count,
  applied: count,
  chain: z.string(),
  postgres: z.enum(["up", "down"]),
  reason: z.string().nullable(),
  uptimeMs: count,
});
export type ReplicaStatus = z.infer<typeof replicaStatus>;

export const API_VERBS = ["propose", "confirm", "read", "status", "admin"] as const;
export type ApiVerb = (typeof API_VERBS)[number];

export const SUBJECTS = {
  discover: "shardpact.discover",
  api: (group: string, replica: string, verb: ApiVerb) => `shardpact.${group}.api.${replica}.${verb}`,
  /** Replica to replica; only `from`'s NKey may publish here. */
  peer: (group: string, to: string, from: string) => `shardpact.${group}.peer.${to}.${from}`,
  /** The same for what brings a snapshot on its way: offers and how far they are. */
  snapshot: (group: string, to: string, from: string) => `shardpact.${group}.snapshot.${to}.${from}`,
  /** The same for the bytes of snapshots: used on a connection of its own. */
  bulk: (group: string, to: string, from: string) => `shardpact.${group}.bulk.${to}.${from}`,
} as const;

const packr = new Packr({ useRecords: false, int64AsType: "number" });

export function encodeApi(value: unknown): Uint8Array {
  return new Uint8Array(packr.pack(value));
}

/** Decodes and validates. @throws ShardpactError `invalid_argument` */
export function decodeApi<T>(schema: z.ZodType<T>, bytes: Uint8Array): T {
  let value: unknown;
  try {
    value = packr.unpack(bytes);
  } catch (cause) {
    throw new ShardpactError("invalid_argument", `a message of ${bytes.byteLength} bytes is not msgpack`, { cause });
  }
  const parsed = schema.safeParse(value);
  if (parsed.success) return parsed.data;
  const issue = parsed.error.issues[0];
  throw new ShardpactError(
    "invalid_argument",
    `a message does not validate: ${issue?.path.join(".") ?? ""}: ${issue?.message ?? ""}`,
  );
}
