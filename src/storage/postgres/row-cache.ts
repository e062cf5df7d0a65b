/**
 * Owns what the apply connection remembers of the tables: rows, and that rows are not there, by what `needs` asks for.
 *
 * This process is the only writer as long as its boot holds, and the write of a batch checks that in its own statement.
 * So what was loaded or written under a boot stays true until the first failure; then all of it is forgotten. Bounded:
 * what was not used lately goes first.
 */
import type { BatchOutput, RecordedOutcome } from "../../catalog/apply.ts";
import type { Change, Need, PageRow, Row, VersionPageRow } from "../../catalog/rows.ts";
import { needKey } from "../../catalog/view.ts";
import { createRecentMap, type RecentMap } from "./recent-map.ts";

const ENTRIES_MAX = 16_384;
const OUTCOMES_MAX = 8_192;
/** Open pages of one dataset's head; those of a larger one are loaded each time. */
const HEAD_PAGES_MAX = 128;
const HEADS_MAX = 256;
/** Of pages only class vocabularies are read whole, and most are small. */
const CLASSES_BYTES_MAX = 16 * 1024;
const NO_BYTES = new Uint8Array(0);

interface HeadPages {
  readonly from: number;
  readonly open: Map<number, VersionPageRow>;
}

export interface RowCache {
  /** Rows of the needs that are known, and the needs that must be loaded. */
  find(needs: readonly Need[]): { readonly rows: Row[]; readonly missing: readonly Need[] };
  /** What was loaded for these needs; a row that did not come is known not to be there. */
  learn(needs: readonly Need[], rows: readonly Row[]): void;
  outcome(commandId: string): RecordedOutcome | undefined;
  /** What was written. */
  wrote(batch: BatchOutput): void;
  clear(): void;
}

export function createRowCache(): RowCache {
  const rows = createRecentMap<Row | null>(ENTRIES_MAX);
  const heads = createRecentMap<HeadPages>(HEADS_MAX);
  const outcomes = createRecentMap<RecordedOutcome>(OUTCOMES_MAX);

  function lookUp(need: Need): readonly Row[] | undefined {
    if (need.kind === "head_pages") {
      const head = heads.get(need.dataset);
      if (!head || head.from > need.from) return undefined;
      return [...head.open.values()].filter((row) => row.position >= need.from);
    }
    if (need.kind === "version_classes") {
      const version = rows.get(needKey({ ...need, kind: "version" }));
      if (version?.table !== "version") return version === null ? [] : undefined;
      return lookUp({ kind: "page", digest: version.classes, withBytes: true });
    }
    const row = rows.get(needKey(need));
    if (row?.table === "page" && need.kind === "page" && need.withBytes && row.bytes.byteLength === 0) return undefined;
    return row ? [row] : row === null ? [] : undefined;
  }

  function put(row: Row): void {
    if (row.table === "version_page") return putHeadPage(heads, row);
    const key = needKeyOf(row);
    if (key === null) return;
    rows.set(key, row.table === "page" ? withoutLargeBytes(row) : row);
  }

  function learnHead({ dataset, from }: Extract<Need, { kind: "head_pages" }>, loaded: readonly Row[]): void {
    const open = new Map<number, VersionPageRow>();
    for (const row of loaded) {
      if (row.table === "version_page" && row.dataset === dataset && row.position >= from) open.set(row.position, row);
    }
    if (open.size <= HEAD_PAGES_MAX) heads.set(dataset, { from, open });
    else heads.delete(dataset);
  }

  return {
    find(needs) {
      const found: Row[] = [];
      const missing: Need[] = [];
      for (const need of needs) {
        const known = lookUp(need);
        if (known) found.push(...known);
        else missing.push(need);
      }
      return { rows: found, missing };
    },
    learn(needs, loaded) {
      const there = new Set<string>();
      for (const row of loaded) {
        const key = row.table === "version_page" ? null : needKeyOf(row);
        if (key === null) continue;
        // A page may be loaded twice, once without its bytes.
        if (there.has(key) && row.table === "page" && row.bytes.byteLength === 0) continue;
        there.add(key);
        put(row);
      }
      for (const need of needs) {
        if (need.kind === "head_pages") learnHead(need, loaded);
        else if (need.kind !== "version_classes" && !there.has(needKey(need))) rows.set(needKey(need), null);
      }
    },
    outcome: (commandId) => outcomes.get(commandId),
    wrote({ changes, ledger }) {
      for (const { row } of changes as readonly Change[]) put(row);
      for (const { commandId, bodyDigest, index, outcome } of ledger) {
        // A rejection may quote a lot; a retry of one is looked up.
        if (commandId === null || bodyDigest === null || !outcome.ok) continue;
        outcomes.set(commandId, { index, bodyDigest, outcome });
      }
    },
    clear() {
      rows.clear();
      heads.clear();
      outcomes.clear();
    },
  };
}

function putHeadPage(heads: RecentMap<HeadPages>, row: VersionPageRow): void {
  const head = heads.get(row.dataset);
  if (!head || row.position < head.from) return;
  // A commit closes a row and may open another at the same position; the order of the two does not matter.
  if (row.untilVersion === null) head.open.set(row.position, row);
  else if (head.open.get(row.position)?.fromVersion === row.fromVersion) head.open.delete(row.position);
  if (head.open.size > HEAD_PAGES_MAX) heads.delete(row.dataset);
}

/** The key of the need that this row answers; null when no need does. */
function needKeyOf(row: Exclude<Row, VersionPageRow>): string | null {
  switch (row.table) {
    case "dataset":
      return needKey({ kind: "dataset", name: row.name });
    case "version":
      return needKey({ kind: "version", dataset: row.dataset, version: row.version });
    case "page":
      return needKey({ kind: "page", digest: row.digest, withBytes: false });
    case "tag":
      return needKey({ kind: "tag", dataset: row.dataset, tag: row.tag });
    case "run":
      return needKey({ kind: "run", run: row.run });
    case "run_epoch":
      return needKey({ kind: "run_epoch", run: row.run, epoch: row.epoch });
    case "pin":
      return needKey({ kind: "pin", dataset: row.dataset, run: row.run });
    case "revocation":
      return needKey({ kind: "revocation", subject: row.subject });
    case "lease":
      return needKey({ kind: "lease", dataset: row.dataset, version: row.version, run: row.run });
    case "shard":
    case "tag_move":
    case "receipt":
      return null;
  }
}

/** Bytes that are kept are a copy: what came with a command is a view of its whole message. */
function withoutLargeBytes(row: PageRow): PageRow {
  const small = row.kind === "classes" && row.bytes.byteLength <= CLASSES_BYTES_MAX;
  return { ...row, bytes: small ? row.bytes.slice() : NO_BYTES };
}
