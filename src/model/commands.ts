/**
 * Owns the commands that the log orders: their zod schemas and their bytes.
 *
 * Bytes of a command (the payload of a log entry, version 1):
 *   u8 version = 1 · u64le proposed-at time in ms (stamped by the leader) · u32le header length · header (UTF-8 JSON) · blob
 * The header is JSON so that the ledger can be read with SQL alone; the blob carries what is binary:
 * the bytes of `page.put`, the 32-byte page digests added by `version.commit`.
 * The body digest, by which a reused command id is told from a retry, covers header and blob but not the time.
 */
import { z } from "zod";
import { concatBytes, u32le, u64le, utf8 } from "./bytes.ts";
import { ShardpactError } from "./errors.ts";
import { LIMITS } from "./limits.ts";
import { canonicalJson, jsonProblem } from "./json.ts";
import { datasetName, replicaId, runId, splitName, tagName, versionNumber } from "./names.ts";

export { canonicalJson };

const digest = z.templateLiteral(["b3:", z.string().regex(/^[0-9a-f]{64}$/)]);
const count = z.number().int().nonnegative();
const note = z.string().max(LIMITS.noteCharsMax);

/** What may be put beside pages: the canonical schema of a version, and its class vocabularies. */
export const objectKind = z.enum(["page", "schema", "classes"]);
export type ObjectKind = z.infer<typeof objectKind>;

/** How a split is cut: by folder; by position within files published as they are; by a key when rows are written (ppm: rows held out). */
export const splitRule = z.discriminatedUnion("kind", [
  z.object({ kind: z.literal("none") }),
  z.object({ kind: z.literal("folders") }),
  z.object({
    kind: z.literal("positional"),
    salt: z.string().max(64),
    ppm: z.record(splitName, z.number().int().min(0).max(1_000_000)),
  }),
  z.object({
    kind: z.literal("key"),
    columns: z.array(z.string().min(1).max(255)).min(1).max(8),
    salt: z.string().max(64),
    ppm: z.record(splitName, z.number().int().min(0).max(1_000_000)),
  }),
]);
export type SplitRule = z.infer<typeof splitRule>;

/** The order that a run fixes for all its ranks; `seed` is a decimal u64. Frozen format, loader docs `sp-order/1`. */
export const orderSpec = z.object({
  alg: z.literal("sp-order/1"),
  strength: z.enum(["none", "block", "window", "full"]),
  seed: z.string().regex(/^(0|[1-9][0-9]{0,19})$/),
  n: z.number().int().positive(),
  K: z.number().int().positive(),
  g: z.number().int().positive(),
});
export type OrderSpec = z.infer<typeof orderSpec>;

/** What `run.begin` fixes; unequal values of a later rank are `plan_mismatch`. */
export const runPlan = z.object({
  dataset: datasetName,
  version: versionNumber,
  root: digest,
  selection: digest,
  order: orderSpec,
  world: z.number().int().positive(),
  batchSize: z.number().int().positive(),
  last: z.enum(["partial", "drop", "pad"]),
  /** The run moves to newer versions at the ends of epochs; version, root and order are then those it began with. */
  follow: z.literal(true).optional(),
});
export type RunPlan = z.infer<typeof runPlan>;

const bodies = {
  /** Puts a page, schema or class vocabulary (the blob) and holds it until a log-time deadline. */
  "page.put": z.object({ kind: objectKind, digest }),
  /** Commits a version as a delta against the head: keep `kept` pages, then add the blob's digests. */
  "version.commit": z.object({
    dataset: datasetName,
    expectedHead: z.object({ version: versionNumber, index: count }).nullable(),
    kept: count,
    added: count,
    root: digest,
    schema: digest,
    classes: digest,
    splits: z
      .array(splitName)
      .min(1)
      .max(LIMITS.splitsMax)
      .refine((names) => new Set(names).size === names.length, "a split is named twice"),
    splitRule,
    message: note,
  }),
  /** Moves a tag; `expected` is the version it must point at now (null: must not exist; absent: whatever). */
  "tag.move": z.object({
    dataset: datasetName,
    tag: tagName,
    version: versionNumber,
    expected: versionNumber.nullable().optional(),
  }),
  "pin.create": z.object({ dataset: datasetName, version: versionNumber, root: digest, run: runId, note }),
  "pin.release": z.object({ dataset: datasetName, run: runId }),
  /** `epoch`, of a run that follows: whose version the plan names. 0 when left out. */
  "run.begin": z.object({
    run: runId,
    plan: runPlan,
    meta: z.record(z.string(), z.string().max(1024)),
    epoch: count.optional(),
  }),
  /** What the first rank at the end of an epoch found: the version that all ranks train on in `epoch`; `from` before it. */
  "epoch.cut": z.object({
    run: runId,
    epoch: z.number().int().positive(),
    dataset: datasetName,
    from: versionNumber,
    version: versionNumber,
    root: digest,
    order: orderSpec,
  }),
  "run.receipt": z.object({ run: runId, rank: count, receipt: z.record(z.string(), z.unknown()) }),
  "run.end": z.object({ run: runId, outcome: z.enum(["done", "failed", "stopped"]) }),
  "version.revoke": z.object({ dataset: datasetName, version: versionNumber, reason: note.min(1) }),
  "shard.revoke": z.object({ digest, reason: note.min(1) }),
  "reader.lease": z.object({
    dataset: datasetName,
    version: versionNumber,
    run: runId,
    ttlMs: z.number().int().positive().max(LIMITS.readerLeaseMsMax),
  }),
  /** A voter's signature under the configuration that followed its own (merkle/certificate.ts). Replicas send it. */
  "configuration.sign": z.object({
    index: z.number().int().positive(),
    chain: z.string().regex(/^[0-9a-f]{64}$/),
    configuration: digest,
    replica: replicaId,
    signature: z.string().regex(/^[0-9a-f]{128}$/),
  }),
} as const;

export type CommandKind = keyof typeof bodies;
export type CommandBody<K extends CommandKind = CommandKind> = z.infer<(typeof bodies)[K]>;

/** One command: who wants what, under which id. `blob` is empty unless the kind says otherwise. */
export type Command = {
  [K in CommandKind]: {
    readonly id: string;
    readonly actor: string;
    readonly kind: K;
    readonly body: CommandBody<K>;
    readonly blob: Uint8Array;
  };
}[CommandKind];

export type CommandOf<K extends CommandKind> = Extract<Command, { kind: K }>;

const header = z.object({
  /** A UUID, or a digest in hex: whatever the client derives its retries from. */
  id: z.string().regex(/^[0-9a-f-]{32,64}$/),
  actor: z.string().min(1).max(LIMITS.nameCharsMax),
  kind: z.string(),
  body: z.unknown(),
});

const headerText = new TextDecoder("utf-8", { fatal: true });
const VERSION = 1;
const HEAD_BYTES = 1 + 8 + 4;

export function isCommandKind(kind: string): kind is CommandKind {
  return Object.hasOwn(bodies, kind);
}

/** Validates a command at the door. @throws ShardpactError `invalid_argument` naming the field, `limit_exceeded`. */
export function parseCommand(command: Omit<Command, "blob"> & { blob?: Uint8Array }): Command {
  if (!isCommandKind(command.kind)) throw unknownKind(command.kind);
  return parseBody(command.kind, command, header.safeParse(command));
}

function unknownKind(kind: unknown): ShardpactError {
  return new ShardpactError("upgrade_required", `the command kind '${String(kind)}' is not known to this build`);
}

type HeaderResult = ReturnType<typeof header.safeParse>;

function parseBody(
  kind: CommandKind,
  command: { readonly body: unknown; readonly blob?: Uint8Array },
  head: HeaderResult,
): Command {
  const body = bodies[kind].safeParse(command.body);
  const issue = head.error?.issues[0] ?? body.error?.issues[0];
  if (issue || !head.success || !body.success) {
    throw new ShardpactError(
      "invalid_argument",
      `${kind}: ${issue?.path.join(".") ?? ""}: ${issue?.message ?? "malformed"}`,
      {
        details: { kind, path: issue?.path ?? [] },
      },
    );
  }
  const problem = jsonProblem(head.data);
  if (problem) throw new ShardpactError("invalid_argument", `${kind}: ${problem}`);
  return {
    id: head.data.id,
    actor: head.data.actor,
    kind,
    body: body.data,
    blob: command.blob ?? new Uint8Array(0),
  } as Command;
}

/** Bytes of header and blob, without the time: what the body digest covers and what clients send. */
export function encodeCommand(command: Command): Uint8Array {
  const head = utf8(canonicalJson({ id: command.id, actor: command.actor, kind: command.kind, body: command.body }));
  const out = concatBytes([u32le(head.byteLength), head, command.blob]);
  if (out.byteLength > LIMITS.commandBytesMax) {
    throw new ShardpactError(
      "limit_exceeded",
      `${command.kind} takes ${out.byteLength} bytes; a command may take ${LIMITS.commandBytesMax}`,
    );
  }
  return out;
}

/** Puts version and leader time in front of `encodeCommand`'s bytes: the payload of a log entry. */
export function stampCommand(encoded: Uint8Array, timeMs: number): Uint8Array {
  return concatBytes([new Uint8Array([VERSION]), u64le(timeMs), encoded]);
}

/** What a log payload says before its command is understood. */
export interface StampedCommand {
  readonly timeMs: number;
  readonly encoded: Uint8Array;
}

/** @throws ShardpactError `damaged` on a short payload or an impossible time, `upgrade_required` on another version. */
export function readStamp(payload: Uint8Array): StampedCommand {
  if (payload.byteLength < HEAD_BYTES)
    throw new ShardpactError("damaged", `a log payload of ${payload.byteLength} bytes is too short`);
  if (payload[0] !== VERSION)
    throw new ShardpactError("upgrade_required", `log payload version ${payload[0]} is not known to this build`);
  const view = new DataView(payload.buffer, payload.byteOffset, payload.byteLength);
  const timeMs = Number(view.getBigUint64(1, true));
  if (!Number.isSafeInteger(timeMs)) throw new ShardpactError("damaged", "a log payload's time is out of range");
  return { timeMs, encoded: payload.subarray(9) };
}

/**
 * Inverse of `encodeCommand`; the blob is a view into `encoded`.
 * @throws ShardpactError `invalid_argument`, `upgrade_required` (unknown kind)
 */
export function decodeCommand(encoded: Uint8Array): Command {
  const view = new DataView(encoded.buffer, encoded.byteOffset, encoded.byteLength);
  const length = encoded.byteLength >= 4 ? view.getUint32(0, true) : Infinity;
  if (4 + length > encoded.byteLength)
    throw new ShardpactError("invalid_argument", "a command's header is longer than the command");
  let json: unknown;
  try {
    json = JSON.parse(headerText.decode(encoded.subarray(4, 4 + length)));
  } catch (cause) {
    throw new ShardpactError("invalid_argument", "a command's header is not JSON", { cause });
  }
  const shape = header.safeParse(json);
  if (!shape.success)
    throw new ShardpactError(
      "invalid_argument",
      `a command's header: ${shape.error.issues[0]?.message ?? "malformed"}`,
    );
  const { kind, body } = shape.data;
  if (!isCommandKind(kind)) throw unknownKind(kind);
  return parseBody(kind, { body, blob: encoded.subarray(4 + length) }, shape);
}
