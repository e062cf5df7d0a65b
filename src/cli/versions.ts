/**
 * Owns `shardpact versions`: what datasets there are, or what versions one has, as a majority confirms it.
 */
import type { Command } from "commander";
import { versionAnswer, type VersionAnswer } from "../model/api.ts";
import { confirmedRows } from "../client/runs.ts";
import { inGroup, withGroupOptions, type Context, type GroupOptions } from "./context.ts";
import { bytesText, dateText, short, table } from "./output.ts";

/** One confirmed answer stays far below a message. */
const ROWS_PER_ANSWER = 100;

export function register(command: Command): void {
  withGroupOptions(command.argument("[dataset]", "list this dataset's versions instead of all datasets"))
    .addHelpText("after", "\nExamples:\n  $ shardpact versions\n  $ shardpact versions mnist")
    .action((dataset: string | undefined, o: GroupOptions) =>
      inGroup(o, (context) => (dataset === undefined ? listDatasets(context) : listVersions(context, dataset))),
    );
}

async function listDatasets({ session, out, timeoutMs, signal }: Context): Promise<void> {
  const rows: Readonly<Record<string, unknown>>[] = [];
  for (;;) {
    const after = rows.length === 0 ? "" : String(rows.at(-1)?.["name"]);
    const query = { kind: "datasets", after, limit: ROWS_PER_ANSWER } as const;
    const page = await confirmedRows(session, query, { timeoutMs, signal });
    rows.push(...page.rows);
    if (page.rows.length < ROWS_PER_ANSWER) break;
  }
  out.data(rows);
  out.line(
    rows.length === 0
      ? "no datasets yet; `shardpact publish NAME FOLDER` makes one"
      : table(
          ["dataset", "head", "root"],
          rows.map((r) => [String(r["name"]), `v${String(r["headVersion"])}`, short(String(r["headRoot"]))]),
        ),
  );
}

async function listVersions(context: Context, dataset: string): Promise<void> {
  const { session, out, timeoutMs, signal } = context;
  const versions: VersionAnswer[] = [];
  for (;;) {
    const after = versions.at(-1)?.version ?? 0;
    const query = { kind: "versions", dataset, after, limit: ROWS_PER_ANSWER } as const;
    const { rows } = await confirmedRows(session, query, { timeoutMs, signal });
    versions.push(...rows.map((row) => versionAnswer.parse(row)));
    if (rows.length < ROWS_PER_ANSWER) break;
  }
  const tags = await confirmedRows(session, { kind: "tags", dataset }, { timeoutMs, signal });
  const tagsOf = (version: number) => tags.rows.filter((t) => t["version"] === version).map((t) => String(t["tag"]));
  out.data(versions.map((v) => ({ ...v, tags: tagsOf(v.version) })));
  out.line(
    table(
      ["version", "tags", "rows", "bytes", "shards", "root", "committed", "by", "note"],
      versions.map((v) => [
        `v${v.version}`,
        tagsOf(v.version).join(", "),
        sum(v, "rows"),
        bytesText(sum(v, "bytes")),
        sum(v, "shards"),
        short(v.root),
        dateText(v.timeMs),
        v.actor,
        v.revocation ? `REVOKED: ${v.revocation.reason}` : v.message,
      ]),
    ),
  );
}

function sum(version: VersionAnswer, field: "rows" | "bytes" | "shards"): number {
  return version.totals.reduce((total, t) => total + t[field], 0);
}
