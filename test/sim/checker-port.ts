/**
 * Owns what the simulator tells its checker, and what it may ask it.
 */
import type { LedgerRow } from "../../src/catalog/apply.ts";
import type { Role } from "../../src/consensus/engine.ts";
import type { MemoryDisk } from "../../src/storage/memory/disk.ts";
import type { Append } from "./log-rules.ts";

export interface Checker {
  appended(append: Append): void;
  /** An engine's message leaves `from`, whose disk is `disk`. */
  leaves(from: string, to: string, disk: MemoryDisk, body: Uint8Array): void;
  /** A batch was applied; `before` was the applied index. */
  applied(replica: string, disk: MemoryDisk, before: number): void;
  /** The log of `disk` was shortened to what is applied. */
  compacted(replica: string, disk: MemoryDisk): void;
  /** A snapshot took the place of what was applied up to `before`. */
  installed(replica: string, disk: MemoryDisk, before: number): void;
  readonly counts: Readonly<Record<"compactions" | "installs" | "repairs", number>>;
  /** A crash of the database took applies back. */
  rolledBack(replica: string, disk: MemoryDisk): void;
  role(replica: string, role: Role, term: number, commit: number): void;
  /**
   * A damaged replica is not healthy: it may halt, and it need not keep up, until its disk is whole again. `forGood`: it
   * has forgotten what it promised, and never counts again.
   */
  damaged(replica: string, forGood: boolean): void;
  /** Something was mended: is it whole? */
  lookAgain(replica: string, disk: MemoryDisk): void;
  /** Only a damaged replica drops what it has applied. */
  startedOver(replica: string): void;
  healthy(replica: string): boolean;
  /** The group still has a healthy quorum in every configuration that may decide when this one is damaged, too. */
  tolerates(replica: string): boolean;
  /** A member of the newest configuration that is chosen. */
  isMember(replica: string): boolean;
  halted(replica: string, reason: string): void;
  /** A vote was given up durably. */
  lostVote(replica: string, reason: string): void;
  check(condition: boolean, message: string): asserts condition;
  chosenCount(): number;
  /** Tells once who first applies the next entry that is chosen. */
  whenChosen(listener: (replica: string) => void): void;
  elections(): number;
  ledgerAt(index: number): LedgerRow | undefined;
  /** The checker's own catalog: what the chosen log comes to. */
  readonly oracle: MemoryDisk;
  /** All tables of every healthy replica against the oracle's. */
  compareTables(replica: string, disk: MemoryDisk): void;
}
