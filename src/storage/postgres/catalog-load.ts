/**
 * Owns how the rows that a batch needs are loaded: one statement, one round trip, whatever the batch holds.
 *
 * Every part is a lookup by key; a part that a batch does not need gets an empty array and costs a few microseconds.
 */
import type pg from "pg";
import type { Outcome, RecordedOutcome } from "../../catalog/apply.ts";
import type { Need, Row, Table } from "../../catalog/rows.ts";
import { rowFromJson, tableSql } from "./tables.ts";

/** Keys of each kind of need, as Postgres array literals are made of them: one array per column. */
interface KeyColumns {
  readonly kind: Need["kind"] | "page_bytes";
  readonly columns: readonly (readonly [type: "text" | "bigint", values: (need: never) => string | number])[];
  readonly table: Table;
  /** Joins the keys `k` (columns a, b, c) with the table's rows `t`. */
  readonly on: string;
}

const text = (values: (need: never) => string) => ["text", values] as const;
const bigint = (values: (need: never) => number) => ["bigint", values] as const;
type Of<K extends Need["kind"]> = Extract<Need, { kind: K }>;

const KEYS: readonly KeyColumns[] = [
  { kind: "dataset", table: "dataset", on: "t.name = k.a", columns: [text((n: Of<"dataset">) => n.name)] },
  {
    kind: "version",
    table: "version",
    on: "t.dataset = k.a AND t.version = k.b",
    columns: [text((n: Of<"version">) => n.dataset), bigint((n: Of<"version">) => n.version)],
  },
  {
    kind: "head_pages",
    table: "version_page",
    on: "t.dataset = k.a AND t.position >= k.b AND t.until_version IS NULL",
    columns: [text((n: Of<"head_pages">) => n.dataset), bigint((n: Of<"head_pages">) => n.from)],
  },
  {
    kind: "tag",
    table: "tag",
    on: "t.dataset = k.a AND t.tag = k.b",
    columns: [text((n: Of<"tag">) => n.dataset), text((n: Of<"tag">) => n.tag)],
  },
  { kind: "run", table: "run", on: "t.run = k.a", columns: [text((n: Of<"run">) => n.run)] },
  {
    kind: "run_epoch",
    table: "run_epoch",
    on: "t.run = k.a AND t.epoch = k.b",
    columns: [text((n: Of<"run_epoch">) => n.run), bigint((n: Of<"run_epoch">) => n.epoch)],
  },
  {
    kind: "pin",
    table: "pin",
    on: `t.dataset = k.a AND t.run = k.b AND t.index =
      (SELECT max(p.index) FROM shardpact.pins p WHERE p.dataset = k.a AND p.run = k.b)`,
    columns: [text((n: Of<"pin">) => n.dataset), text((n: Of<"pin">) => n.run)],
  },
  {
    kind: "revocation",
    table: "revocation",
    on: "t.subject = k.a",
    columns: [text((n: Of<"revocation">) => n.subject)],
  },
  {
    kind: "lease",
    table: "lease",
    on: "t.dataset = k.a AND t.version = k.b AND t.run = k.c",
    columns: [
      text((n: Of<"lease">) => n.dataset),
      bigint((n: Of<"lease">) => n.version),
      text((n: Of<"lease">) => n.run),
    ],
  },
];

const PAGE_WITHOUT_BYTES = `SELECT p.digest, p.kind, ''::bytea AS bytes, p.totals, p.put_index, p.actor, p.hold_until_ms`;
const DIGESTS = (parameter: number) =>
  `(SELECT decode(substr(d, 4), 'hex') AS digest FROM unnest($${parameter}::text[]) AS d)`;

/** The statement and, in the order of its parameters, how each array is filled. */
const { LOAD_SQL, PARAMETERS } = buildStatement();

function buildStatement() {
  const parts: string[] = [];
  const parameters: ((needs: readonly Need[], commandIds: readonly string[]) => string)[] = [];
  const add = (fill: (typeof parameters)[number]): number => parameters.push(fill);
  for (const { kind, table, on, columns } of KEYS) {
    const arrays = columns.map(([type, value]) => {
      const at = add((needs) =>
        arrayOf(needs.filter((need) => need.kind === kind).map((need) => value(need as never))),
      );
      return `$${at}::${type}[]`;
    });
    const names = ["a", "b", "c"].slice(0, columns.length).join(", ");
    parts.push(
      `SELECT '${table}' AS kind, to_json(t) AS row FROM unnest(${arrays.join(", ")}) AS k (${names}) JOIN ${tableSql(table)} t ON ${on}`,
    );
  }
  const pageDigests = (withBytes: boolean) => (needs: readonly Need[]) =>
    arrayOf(needs.flatMap((need) => (need.kind === "page" && need.withBytes === withBytes ? [need.digest] : [])));
  const pages = tableSql("page");
  const bare = add(pageDigests(false));
  parts.push(
    `SELECT 'page', to_json(t) FROM (${PAGE_WITHOUT_BYTES} FROM ${DIGESTS(bare)} k JOIN ${pages} p USING (digest)) t`,
  );
  const whole = add(pageDigests(true));
  parts.push(`SELECT 'page', to_json(t) FROM ${DIGESTS(whole)} k JOIN ${pages} t USING (digest)`);
  const ofClasses = (value: (need: Of<"version_classes">) => string | number) => (needs: readonly Need[]) =>
    arrayOf(needs.flatMap((need) => (need.kind === "version_classes" ? [value(need)] : [])));
  const datasets = add(ofClasses((need) => need.dataset));
  const versions = add(ofClasses((need) => need.version));
  // The overlay finds the page through the version's row.
  parts.push(
    `SELECT 'page', to_json(t) FROM unnest($${datasets}::text[], $${versions}::bigint[]) AS k (a, b)
     JOIN ${tableSql("version")} v ON v.dataset = k.a AND v.version = k.b JOIN ${pages} t ON t.digest = v.classes`,
  );
  const ids = add((_needs, commandIds) => arrayOf(commandIds));
  parts.push(
    `SELECT 'outcome', json_build_object('id', l.command_id, 'index', l.index, 'bodyDigest', encode(l.body_digest, 'hex'), 'outcome', l.outcome)
     FROM unnest($${ids}::text[]) AS k (a) JOIN shardpact.ledger l ON l.command_id = k.a`,
  );
  return { LOAD_SQL: parts.join("\nUNION ALL\n"), PARAMETERS: parameters };
}

export interface Loaded {
  readonly rows: readonly Row[];
  readonly outcomes: ReadonlyMap<string, RecordedOutcome>;
}

interface OutcomeJson extends RecordedOutcome {
  readonly id: string;
  readonly outcome: Outcome;
}

/** Loads what exists of the needs, and the recorded outcomes of the command ids. */
export async function loadBatch(
  client: pg.Client,
  needs: readonly Need[],
  commandIds: readonly string[],
): Promise<Loaded> {
  if (needs.length === 0 && commandIds.length === 0) return { rows: [], outcomes: new Map() };
  const result = await client.query<{ kind: Table | "outcome"; row: Readonly<Record<string, unknown>> }>({
    name: "catalog_load",
    text: LOAD_SQL,
    values: PARAMETERS.map((fill) => fill(needs, commandIds)),
  });
  const rows: Row[] = [];
  const outcomes = new Map<string, RecordedOutcome>();
  for (const { kind, row } of result.rows) {
    if (kind !== "outcome") {
      rows.push(rowFromJson(kind, row));
      continue;
    }
    const { id, ...recorded } = row as unknown as OutcomeJson;
    outcomes.set(id, recorded);
  }
  return { rows, outcomes };
}

/** An array literal; every text is quoted, since a revocation's subject or a command id is what a client chose. */
function arrayOf(values: readonly (string | number)[]): string {
  const items = values.map((value) =>
    typeof value === "number" ? String(value) : `"${value.replaceAll("\\", "\\\\").replaceAll('"', '\\"')}"`,
  );
  return `{${items.join(",")}}`;
}
