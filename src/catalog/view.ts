/**
 * Owns what `decide` sees of the catalog: loaded rows under the changes of the entries before it in the batch.
 *
 * A view gives only what its command declared in `needs`. Reading anything else is a bug that would show only when a
 * batch is applied one by one, so it throws at once (I14).
 */
import type { Digest } from "../model/bytes.ts";
import { invariant } from "../model/errors.ts";
import { PRIMARY_KEYS } from "./rows.ts";
import type {
  Change,
  DatasetRow,
  LeaseRow,
  Need,
  PageRow,
  PinRow,
  RevocationRow,
  Row,
  RunEpochRow,
  RunRow,
  Table,
  TagRow,
  VersionPageRow,
  VersionRow,
} from "./rows.ts";

export interface View {
  dataset(name: string): DatasetRow | null;
  version(dataset: string, version: number): VersionRow | null;
  /** Open pages of the head at positions ≥ from, by position. */
  headPages(dataset: string, from: number): readonly VersionPageRow[];
  page(digest: Digest): PageRow | null;
  /** Bytes of a page row whose bytes were asked for. */
  bytes(digest: Digest): Uint8Array;
  /** Bytes of the class vocabularies of a version that exists. */
  classesOf(version: VersionRow): Uint8Array;
  tag(dataset: string, tag: string): TagRow | null;
  run(run: string): RunRow | null;
  runEpoch(run: string, epoch: number): RunEpochRow | null;
  pin(dataset: string, run: string): PinRow | null;
  revocation(subject: string): RevocationRow | null;
  lease(dataset: string, version: number, run: string): LeaseRow | null;
}

/** Rows by key, and the open pages of each dataset's head. Grows with each entry of a batch. */
export interface Overlay {
  readonly rows: Map<string, Row>;
  readonly openPages: Map<string, Map<number, VersionPageRow>>;
}

/** A row's identity in text: table and primary key, joined by '\n'. */
export function rowKey(row: Row): string {
  const columns: readonly string[] = PRIMARY_KEYS[row.table];
  let key: string = row.table;
  for (const column of columns) key += `\n${row[column as keyof Row] as string | number}`;
  return key;
}

export function openOverlay(rows: readonly Row[]): Overlay {
  const overlay: Overlay = { rows: new Map(), openPages: new Map() };
  for (const row of rows) {
    const old = overlay.rows.get(rowKey(row));
    // A page may have been loaded twice, once without its bytes.
    if (old?.table === "page" && old.bytes.byteLength > 0) continue;
    putRow(overlay, row);
  }
  return overlay;
}

export function putChanges(overlay: Overlay, changes: readonly Change[]): void {
  for (const change of changes) putRow(overlay, change.row);
}

/** The overlay as one command may read it. */
export function viewOf({ rows, openPages }: Overlay, needs: readonly Need[]): View {
  const declared = new Map(needs.map((need) => [needKey(need), need]));
  const get = <T extends Table>(table: T, ...key: readonly (string | number)[]): Extract<Row, { table: T }> | null => {
    const text = keyOf(table, ...key);
    if (!declared.has(text)) invariant(false, `${text.replaceAll("\n", " ")} was read and not declared`);
    return (rows.get(text) as Extract<Row, { table: T }> | undefined) ?? null;
  };
  const bytesAt = (digest: Digest): Uint8Array => {
    const row = rows.get(keyOf("page", digest));
    invariant(row?.table === "page" && row.bytes.byteLength > 0, `the bytes of ${digest} were read and not loaded`);
    return row.bytes;
  };
  return {
    dataset: (name) => get("dataset", name),
    version: (dataset, version) => get("version", dataset, version),
    headPages: (dataset, from) => {
      const need = declared.get(keyOf("head_pages", dataset));
      invariant(need?.kind === "head_pages" && need.from <= from, `pages of ${dataset} were read and not declared`);
      const open = [...(openPages.get(dataset)?.values() ?? [])];
      return open.filter((row) => row.position >= from).sort((a, b) => a.position - b.position);
    },
    page: (digest) => get("page", digest),
    bytes: (digest) => {
      const need = declared.get(keyOf("page", digest));
      invariant(need?.kind === "page" && need.withBytes, `the bytes of ${digest} were read and not declared`);
      return bytesAt(digest);
    },
    classesOf: ({ dataset, version, classes }) => {
      const key = keyOf("version_classes", dataset, version);
      invariant(declared.has(key), `the classes of ${dataset}@v${version} were read and not declared`);
      return bytesAt(classes);
    },
    tag: (dataset, tag) => get("tag", dataset, tag),
    run: (run) => get("run", run),
    runEpoch: (run, epoch) => get("run_epoch", run, epoch),
    pin: (dataset, run) => get("pin", dataset, run),
    revocation: (subject) => get("revocation", subject),
    lease: (dataset, version, run) => get("lease", dataset, version, run),
  };
}

/** One need for each thing read: the widest range of head pages, and bytes when anybody wants them. */
export function mergeNeeds(needs: Iterable<Need>): Need[] {
  const merged = new Map<string, Need>();
  for (const need of needs) {
    const key = needKey(need);
    const old = merged.get(key);
    merged.set(key, old ? widen(old, need) : need);
  }
  return [...merged.values()];
}

function widen(a: Need, b: Need): Need {
  if (a.kind === "head_pages" && b.kind === "head_pages") return a.from <= b.from ? a : b;
  if (a.kind === "page" && b.kind === "page") return a.withBytes ? a : b;
  return a;
}

/** A need's identity in text: equal for needs that one load can serve. */
export function needKey(need: Need): string {
  switch (need.kind) {
    case "dataset":
      return keyOf("dataset", need.name);
    case "version":
    case "version_classes":
      return keyOf(need.kind, need.dataset, need.version);
    case "head_pages":
      return keyOf("head_pages", need.dataset);
    case "page":
      return keyOf("page", need.digest);
    case "tag":
      return keyOf("tag", need.dataset, need.tag);
    case "run":
      return keyOf("run", need.run);
    case "run_epoch":
      return keyOf("run_epoch", need.run, need.epoch);
    case "pin":
      return keyOf("pin", need.dataset, need.run);
    case "revocation":
      return keyOf("revocation", need.subject);
    case "lease":
      return keyOf("lease", need.dataset, need.version, need.run);
  }
}

function putRow({ rows, openPages }: Overlay, row: Row): void {
  rows.set(rowKey(row), row);
  // Taken again, a pin is another row; a command asks for the last one.
  if (row.table === "pin") rows.set(keyOf("pin", row.dataset, row.run), row);
  if (row.table !== "version_page") return;
  let pages = openPages.get(row.dataset);
  if (!pages) openPages.set(row.dataset, (pages = new Map()));
  if (row.untilVersion === null) pages.set(row.position, row);
  // A commit closes a row and may open another at the same position; the order of the two must not matter.
  else if (pages.get(row.position)?.fromVersion === row.fromVersion) pages.delete(row.position);
}

function keyOf(kind: string, ...parts: readonly (string | number)[]): string {
  let key = kind;
  for (const part of parts) key += `\n${part}`;
  return key;
}
