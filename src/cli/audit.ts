/**
 * Owns `shardpact audit`: the lists an auditor asks for, as a majority confirms them, and the check of whole databases.
 */
import { existsSync } from "node:fs";
import { readdir } from "node:fs/promises";
import { join } from "node:path";
import type { Command } from "commander";
import type { AnswerRow } from "../client/answers.ts";
import { confirmedRows } from "../client/runs.ts";
import { ShardpactError, toShardpactError } from "../model/errors.ts";
import type { CatalogQuery } from "../model/api.ts";
import { registerReplay } from "./audit-replay.ts";
import { inGroup, withGroupOptions, type Context, type GroupOptions } from "./context.ts";
import { createOutput, dateText, EXIT, short, table } from "./output.ts";

const ROWS_PER_ANSWER = 100;

export function register(command: Command): void {
  withGroupOptions(command.command("runs").summary("runs and what they fixed").argument("[dataset]")).action(
    (dataset: string | undefined, o: GroupOptions) => inGroup(o, (context) => listRuns(context, dataset ?? null)),
  );
  withGroupOptions(
    command.command("tags").summary("every move of every tag of a dataset").argument("<dataset>"),
  ).action((dataset: string, o: GroupOptions) => inGroup(o, (context) => listTagMoves(context, dataset)));
  withGroupOptions(command.command("pins").summary("which run claims which version").argument("[dataset]")).action(
    (dataset: string | undefined, o: GroupOptions) => inGroup(o, (context) => listPins(context, dataset ?? null)),
  );
  withGroupOptions(
    command.command("revocations").summary("what was revoked, by whom, why").argument("<dataset>"),
  ).action((dataset: string, o: GroupOptions) => inGroup(o, (context) => listRevocations(context, dataset)));
  registerReplay(command.command("replay"));
  command
    .command("verify")
    .summary("recompute chain, roots and rows of replicas' databases, and compare them")
    .description(
      "Recomputes the hash chain, every root and all rows of each database from its ledger, and compares the replicas.",
    )
    .option("--postgres <url...>", "databases of the replicas, only read; default: those of --dir")
    .option("--dir <dir...>", "folders of `shardpact up` or `init`, for their databases", [".shardpact", "deploy"])
    .option("--json", "machine-readable output")
    .addHelpText(
      "after",
      "\nExits with 1 when something was found.\n\nExamples:\n  $ shardpact audit verify                     # beside `shardpact up`\n  $ shardpact audit verify --postgres postgres://auditor@db1/shardpact postgres://auditor@db2/shardpact",
    )
    .action(async (o: { readonly postgres?: string[]; readonly dir: string[]; readonly json?: boolean }) =>
      verifyDatabases(o.postgres ?? (await databasesIn(o.dir)), o.json === true),
    );
  command.addHelpText(
    "after",
    "\nExamples:\n  $ shardpact audit runs mnist\n  $ shardpact audit tags mnist --json\n  $ shardpact audit replay exp-42\n  $ shardpact audit verify\n\nThe same and more in SQL: the views v_versions, v_runs, v_blast_radius, v_tag_history in each replica's database.",
  );
}

async function listRuns(context: Context, dataset: string | null): Promise<void> {
  const rows = await allRows(context, (last) => ({
    kind: "runs",
    dataset,
    after: last === null ? "" : String(last["run"]),
    limit: ROWS_PER_ANSWER,
  }));
  print(context, rows, ["run", "version", "root", "batch", "world", "began", "by", "outcome"], (row) => {
    const plan = row["plan"] as Readonly<Record<string, unknown>>;
    const version = `${String(plan["dataset"])}@v${String(plan["version"])}`;
    const outcome = row["outcome"] === null ? "running" : String(row["outcome"]);
    return [
      String(row["run"]),
      version,
      short(String(plan["root"])),
      String(plan["batchSize"]),
      String(plan["world"]),
      date(row),
      String(row["actor"]),
      outcome,
    ];
  });
}

async function listTagMoves(context: Context, dataset: string): Promise<void> {
  const rows = await allRows(context, (last) => ({
    kind: "tag_history",
    dataset,
    after: last === null ? 0 : Number(last["index"]),
    limit: ROWS_PER_ANSWER,
  }));
  print(context, rows, ["index", "when", "tag", "from", "to", "by"], (row) => [
    String(row["index"]),
    date(row),
    String(row["tag"]),
    row["fromVersion"] === null ? "-" : `v${String(row["fromVersion"])}`,
    `v${String(row["toVersion"])}`,
    String(row["actor"]),
  ]);
}

async function listPins(context: Context, dataset: string | null): Promise<void> {
  const { session, timeoutMs, signal } = context;
  const { rows } = await confirmedRows(session, { kind: "pins", dataset, run: null }, { timeoutMs, signal });
  print(context, rows, ["dataset", "run", "version", "root", "when", "by", "released", "note"], (row) => [
    String(row["dataset"]),
    String(row["run"]),
    `v${String(row["version"])}`,
    short(String(row["root"])),
    date(row),
    String(row["actor"]),
    row["releasedIndex"] === null ? "no" : `at ${String(row["releasedIndex"])}`,
    String(row["note"]),
  ]);
}

async function listRevocations(context: Context, dataset: string): Promise<void> {
  const { session, timeoutMs, signal } = context;
  const { rows } = await confirmedRows(session, { kind: "revocations", dataset }, { timeoutMs, signal });
  print(context, rows, ["index", "what", "when", "by", "why"], (row) => [
    String(row["index"]),
    String(row["subject"]),
    date(row),
    String(row["actor"]),
    String(row["reason"]),
  ]);
}

type PagedQuery = Extract<CatalogQuery, { kind: "runs" | "tag_history" }>;

/** All rows of a paged list, each page confirmed. */
async function allRows(
  { session, timeoutMs, signal }: Context,
  query: (last: AnswerRow | null) => PagedQuery,
): Promise<AnswerRow[]> {
  const rows: AnswerRow[] = [];
  for (;;) {
    const page = await confirmedRows(session, query(rows.at(-1) ?? null), { timeoutMs, signal });
    rows.push(...page.rows);
    if (page.rows.length < ROWS_PER_ANSWER) return rows;
  }
}

function print(
  { out }: Context,
  rows: readonly AnswerRow[],
  header: readonly string[],
  cells: (row: AnswerRow) => string[],
): void {
  out.data(rows);
  out.line(rows.length === 0 ? "none" : table(header, rows.map(cells)));
}

function date(row: AnswerRow): string {
  return dateText(Number(row["timeMs"]));
}

/** The databases that the replicas' configurations below these folders name. @throws ShardpactError `config_invalid` */
async function databasesIn(dirs: readonly string[]): Promise<string[]> {
  const { loadReplicaConfig } = await import("../replica/index.ts");
  const urls: string[] = [];
  for (const dir of dirs) {
    const entries = await readdir(dir, { withFileTypes: true }).catch(() => []);
    for (const { name } of entries.filter((e) => e.isDirectory()).sort((a, b) => (a.name < b.name ? -1 : 1))) {
      const file = join(dir, name, "replica.json");
      if (existsSync(file)) urls.push((await loadReplicaConfig(file)).postgres);
    }
  }
  if (urls.length > 0) return urls;
  throw new ShardpactError("config_invalid", `no replica's configuration lies in ${dirs.join(" or ")}`, {
    hint: "Name the databases: --postgres postgres://auditor@db1/shardpact …",
  });
}

/** One database after the other; what replicas came to at their last common index is compared at the end. */
async function verifyDatabases(urls: readonly string[], json: boolean): Promise<void> {
  const { auditVerify } = await import("../storage/postgres/audit.ts");
  const out = createOutput(json);
  for (const url of urls) {
    if (URL.canParse(url)) continue;
    throw new ShardpactError("invalid_argument", `'${url}' is not the address of a Postgres database`, {
      hint: "Write postgres://user@host:5432/database.",
    });
  }
  const reports = [];
  for (const url of urls) {
    const report = await auditVerify(url).catch((cause: unknown) => {
      const { code, message, hint } = toShardpactError(cause);
      throw new ShardpactError(code, `${withoutPassword(url)}: ${message}`, { hint, cause });
    });
    reports.push({ database: withoutPassword(url), ...report });
    const { applied, rows, findings } = report;
    const mark = findings.length === 0 ? "✓" : "✗";
    out.line(
      `${mark} ${withoutPassword(url)}: ${rows} rows, index ${applied.index}, chain ${applied.chain.slice(0, 16)}…`,
    );
    for (const { table: name, row, index, problem } of findings) {
      out.line(`    ${name} ${row}${index === null ? "" : ` (index ${index})`}: ${problem}`);
    }
  }
  const diverged = differing(reports.map(({ database, applied }) => ({ database, applied })));
  for (const text of diverged) out.line(`✗ ${text}`);
  out.data({ replicas: reports, diverged });
  if (diverged.length > 0 || reports.some((r) => r.findings.length > 0)) process.exitCode = EXIT.found;
}

interface Applied {
  readonly database: string;
  readonly applied: { readonly index: number; readonly chain: string; readonly stateDigest: string };
}

/** Databases at the same index must have the same chain and state; at other indexes nothing can be said. */
function differing(databases: readonly Applied[]): string[] {
  return databases.flatMap((a, i) =>
    databases
      .slice(i + 1)
      .filter(({ applied: b }) => a.applied.index === b.index)
      .filter(({ applied: b }) => a.applied.chain !== b.chain || a.applied.stateDigest !== b.stateDigest)
      .map((b) => `${a.database} and ${b.database} differ at index ${b.applied.index}`),
  );
}

function withoutPassword(url: string): string {
  if (!URL.canParse(url)) return url;
  const parsed = new URL(url);
  parsed.password = "";
  return parsed.href;
}
