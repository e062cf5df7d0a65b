/**
 * Owns what the command line says and how it ends: lines or JSON on stdout, notices and errors on stderr, exit codes.
 *
 * An error says what happened, where, and what to do next; a stack is shown only for a bug of ours (`internal`).
 */
import { once } from "node:events";
import { toShardpactError, type ErrorCode, type ShardpactError } from "../model/errors.ts";
import type { Notice } from "../client/session.ts";

export const EXIT = {
  ok: 0,
  found: 1,
  invalid: 2,
  notFound: 3,
  unavailable: 4,
  damaged: 5,
  conflict: 6,
  bug: 70,
  interrupted: 130,
} as const;

export const EXIT_HELP = `
Exit codes:
  0 done                       4 no quorum, or nothing answers
  1 a check found something    5 damaged, corrupt or diverged
  2 wrong usage or input       6 conflict: somebody was first, or it was revoked
  3 not found                  70 a bug, 130 interrupted`;

/** Every code has its exit code: a new one does not compile without. */
const EXIT_OF: Readonly<Record<ErrorCode, number>> = {
  aborted: EXIT.interrupted,
  budget_too_small: EXIT.invalid,
  change_in_progress: EXIT.conflict,
  class_unknown: EXIT.invalid,
  closed: EXIT.bug,
  column_unknown: EXIT.invalid,
  command_id_reused: EXIT.conflict,
  config_invalid: EXIT.invalid,
  configuration_moved: EXIT.conflict,
  damaged: EXIT.damaged,
  fenced: EXIT.conflict,
  full_shuffle_too_costly: EXIT.invalid,
  group_forked: EXIT.damaged,
  head_moved: EXIT.conflict,
  image_malformed: EXIT.invalid,
  internal: EXIT.bug,
  invalid_argument: EXIT.invalid,
  limit_exceeded: EXIT.invalid,
  loader_busy: EXIT.conflict,
  lock_mismatch: EXIT.conflict,
  no_quorum: EXIT.unavailable,
  not_caught_up: EXIT.unavailable,
  not_found: EXIT.notFound,
  not_leader: EXIT.unavailable,
  null_found: EXIT.invalid,
  page_missing: EXIT.conflict,
  pin_conflict: EXIT.conflict,
  plan_mismatch: EXIT.conflict,
  replica_diverged: EXIT.damaged,
  resume_mismatch: EXIT.conflict,
  revoked: EXIT.conflict,
  root_mismatch: EXIT.damaged,
  run_ended: EXIT.conflict,
  schema_differs: EXIT.invalid,
  setup_failed: EXIT.unavailable,
  shape_differs: EXIT.invalid,
  shard_corrupt: EXIT.damaged,
  shard_malformed: EXIT.invalid,
  split_changed: EXIT.invalid,
  store_failed: EXIT.unavailable,
  worker_failed: EXIT.unavailable,
  tag_moved: EXIT.conflict,
  timeout: EXIT.unavailable,
  type_unsupported: EXIT.invalid,
  unavailable: EXIT.unavailable,
  unauthorized: EXIT.invalid,
  upgrade_required: EXIT.invalid,
  value_out_of_range: EXIT.invalid,
};

export function exitCodeOf(error: ShardpactError): number {
  return EXIT_OF[error.code];
}

export interface Output {
  readonly json: boolean;
  /** One line for people; nothing when JSON was asked for. */
  line(text: string): void;
  /** The result for programs; nothing unless JSON was asked for. */
  data(value: unknown): void;
  /** The same with a list at its end, under `key`, that need not fit in memory. */
  dataWithList(value: object, key: string, items: AsyncIterable<unknown>): Promise<void>;
  notice(notice: Notice): void;
}

export function createOutput(json: boolean): Output {
  return {
    json,
    line: (text) => void (json || process.stdout.write(`${text}\n`)),
    data: (value) => void (json && process.stdout.write(`${JSON.stringify(value, jsonValue, 2)}\n`)),
    dataWithList: async (value, key, items) => void (json && (await writeWithList(value, key, items))),
    notice: ({ code, message, details }) => {
      process.stderr.write(json ? `${JSON.stringify({ notice: { code, message, details } })}\n` : `! ${message}\n`);
    },
  };
}

async function writeWithList(value: object, key: string, items: AsyncIterable<unknown>): Promise<void> {
  const write = async (text: string): Promise<void> => {
    if (!process.stdout.write(text)) await once(process.stdout, "drain");
  };
  const head = JSON.stringify({ ...value, [key]: [] }, jsonValue, 2);
  await write(head.slice(0, head.lastIndexOf("]")));
  let separator = "\n";
  for await (const item of items) {
    await write(`${separator}    ${JSON.stringify(item, jsonValue)}`);
    separator = ",\n";
  }
  await write("\n  ]\n}\n");
}

function jsonValue(_key: string, value: unknown): unknown {
  if (typeof value === "bigint") return value.toString();
  return value instanceof Uint8Array ? Buffer.from(value).toString("hex") : value;
}

/** Prints the error on stderr (as JSON too, when asked for) and returns the exit code. */
export function printError(error: unknown, json: boolean): number {
  const known = toShardpactError(error);
  if (json) {
    process.stderr.write(`${JSON.stringify({ error: known.toJSON() })}\n`);
    return exitCodeOf(known);
  }
  const lines = [`✗ ${known.message}`, `  code: ${known.code}${whereOf(known)}`];
  if (known.hint !== "") lines.push(`  next: ${known.hint}`);
  if (known.code === "internal") lines.push("", stackOf(known), "", "This is a bug in Shardpact: please report it.");
  process.stderr.write(`${lines.join("\n")}\n`);
  return exitCodeOf(known);
}

/** Details that help no reader: they are in the hint, or only a program can use them. */
const FOR_PROGRAMS: ReadonlySet<string> = new Set(["nearest", "commandId", "timeMs"]);

function stackOf(error: ShardpactError): string {
  return (error.cause instanceof Error ? error.cause.stack : error.stack) ?? "";
}

/** The figures that say where, as far as they fit a line and the message does not hold them already. */
function whereOf({ details, message }: ShardpactError): string {
  const shown = Object.entries(details)
    .filter(([key, value]) => !FOR_PROGRAMS.has(key) && isShort(value) && !repeats(message, value))
    .map(([key, value]) => `${key} ${Array.isArray(value) ? value.join(", ") || "none" : String(value)}`);
  return shown.length === 0 ? "" : ` (${shown.join("; ")})`;
}

function repeats(message: string, value: unknown): boolean {
  return typeof value === "string" && value.length >= 4 && message.includes(value);
}

function isShort(value: unknown): boolean {
  if (Array.isArray(value)) return value.length <= 8 && value.every((v) => typeof v !== "object" && isShort(v));
  return typeof value === "number" || (typeof value === "string" && value.length <= 80);
}

/** `10,000`. */
export function count(value: number): string {
  return value.toLocaleString("en-US");
}

/** `1 shard`, `2 shards`. */
export function plural(n: number, word: string): string {
  return `${count(n)} ${word}${n === 1 ? "" : "s"}`;
}

/** `31.4 MB`: decimal units, three digits. */
export function bytesText(bytes: number): string {
  const units = ["B", "kB", "MB", "GB", "TB", "PB"];
  let value = bytes;
  let unit = 0;
  while (value >= 999.5 && unit < units.length - 1) {
    value /= 1000;
    unit++;
  }
  return `${unit === 0 ? value : value.toPrecision(3)} ${units[unit] ?? ""}`;
}

/** `b3:9f2c41d0…` */
export function short(digest: string): string {
  return digest.length > 15 ? `${digest.slice(0, 15)}…` : digest;
}

export function dateText(timeMs: number): string {
  return new Date(timeMs).toISOString().replace("T", " ").slice(0, 19);
}

/** Columns padded to their widest cell, under a header; the first column is left aligned, numbers right. */
export function table(header: readonly string[], rows: readonly (readonly (string | number)[])[]): string {
  const cells = [header.map(String), ...rows.map((row) => row.map((v) => (typeof v === "number" ? count(v) : v)))];
  const widths = header.map((_, i) => Math.max(...cells.map((row) => row[i]?.length ?? 0)));
  const isNumber = header.map((_, i) => rows.length > 0 && rows.every((row) => typeof row[i] === "number"));
  return cells
    .map((row) =>
      row
        .map((cell, i) => (isNumber[i] ? cell.padStart(widths[i] ?? 0) : cell.padEnd(widths[i] ?? 0)))
        .join("  ")
        .trimEnd(),
    )
    .join("\n");
}
