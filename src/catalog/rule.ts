/**
 * Owns the shape of a rule: what one kind of command reads, and what it comes to.
 *
 * Rules are pure. They see log time and index, never a clock; the same view and command give the same decision on every
 * replica, for ever. A rule rejects by throwing a ShardpactError; `internal` means a bug and stops the replica.
 */
import type { Command, CommandKind } from "../model/commands.ts";
import { ShardpactError } from "../model/errors.ts";
import type { Change, Need, Row, VersionRow } from "./rows.ts";
import type { View } from "./view.ts";

/** Where in the log the command stands. */
export interface LogPoint {
  readonly index: number;
  /** Log time in ms. */
  readonly timeMs: number;
}

/** A command is accepted: rows to put, and what the client is told. */
export interface Accepted {
  readonly changes: readonly Change[];
  readonly result: Readonly<Record<string, unknown>>;
}

export interface Rule<K extends CommandKind> {
  needs(command: Extract<Command, { kind: K }>): readonly Need[];
  /** @throws ShardpactError the rejection */
  decide(view: View, command: Extract<Command, { kind: K }>, at: LogPoint): Accepted;
}

export function accept(result: Accepted["result"], ...rows: readonly Row[]): Accepted {
  return { changes: rows.map((row) => ({ op: "put", row })), result };
}

/** A version's name among revocation subjects. */
export function versionSubject(dataset: string, version: number): string {
  return `${dataset}@v${version}`;
}

/** What `requireVersion` reads. */
export function versionNeeds(dataset: string, version: number): readonly Need[] {
  return [
    { kind: "dataset", name: dataset },
    { kind: "version", dataset, version },
    { kind: "revocation", subject: versionSubject(dataset, version) },
  ];
}

/** The version's row. @throws `not_found` */
export function requireVersion(view: View, dataset: string, version: number): VersionRow {
  const head = view.dataset(dataset);
  if (!head) {
    throw new ShardpactError("not_found", `there is no dataset '${dataset}'`, { details: { dataset } });
  }
  const row = view.version(dataset, version);
  if (row) return row;
  throw new ShardpactError("not_found", `${dataset} has no v${version}; its head is v${head.headVersion}`, {
    details: { dataset, version, headVersion: head.headVersion },
  });
}

/** @throws `revoked`, with who, when and why */
export function requireNotRevoked(view: View, dataset: string, version: number): void {
  const subject = versionSubject(dataset, version);
  const revocation = view.revocation(subject);
  if (!revocation) return;
  const { actor, reason, index, timeMs } = revocation;
  throw new ShardpactError("revoked", `${subject} was revoked by ${actor}: ${reason}`, {
    details: { subject, actor, reason, index, timeMs },
    hint: "Use another version of the dataset.",
  });
}

/** @throws `root_mismatch` when the client means other content than the version has */
export function requireRoot(row: VersionRow, root: string): void {
  if (row.root === root) return;
  throw new ShardpactError("root_mismatch", `${versionSubject(row.dataset, row.version)} has another root`, {
    details: { dataset: row.dataset, version: row.version, expected: root, got: row.root },
  });
}
