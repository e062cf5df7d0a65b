/**
 * Owns `shardpact versions`: what datasets there are, or what versions one has, as a majority confirms it; or, where that
 * is asked for, as one replica has it, and how old that may be.
 */
import { InvalidArgumentError, Option, type Command } from "commander";
import { versionAnswer, type ReadConsistency, type VersionAnswer } from "../model/api.ts";
import type { AnswerRow } from "../client/answers.ts";
import { rowsFromOne } from "../client/rows.ts";
import { confirmedRows, type ListQuery } from "../client/runs.ts";
import { inGroup, withGroupOptions, type Context, type GroupOptions } from "./context.ts";
import { bytesText, dateText, short, table } from "./output.ts";

/** One confirmed answer stays far below a message. */
const ROWS_PER_ANSWER = 100;

/** `quorum`: a majority signs the answer. The others are one replica's word. */
type Consistency = { readonly kind: "quorum" } | ReadConsistency;
type Options = GroupOptions & { readonly consistency: Consistency };
type Ask = (query: ListQuery) => Promise<readonly AnswerRow[]>;

export function register(command: Command): void {
  withGroupOptions(command.argument("[dataset]", "list this dataset's versions instead of all datasets"))
    .addOption(
      new Option(
        "--consistency <level>",
        "quorum (a majority signs), linearizable (one replica, nothing acknowledged is missing), bounded:SECONDS, any",
      )
        .argParser(parseConsistency)
        .default({ kind: "quorum" }, "quorum"),
    )
    .addHelpText(
      "after",
      "\nExamples:\n  $ shardpact versions\n  $ shardpact versions mnist\n  $ shardpact versions --consistency bounded:5",
    )
    .action((dataset: string | undefined, o: Options) =>
      inGroup(o, (context) => {
        const ask = askerOf(context, o.consistency);
        return dataset === undefined ? listDatasets(context, ask) : listVersions(context, ask, dataset);
      }),
    );
}

function parseConsistency(text: string): Consistency {
  if (text === "quorum" || text === "linearizable" || text === "any") return { kind: text };
  const seconds = Number(/^bounded:(.+)$/.exec(text)?.[1]);
  if (Number.isFinite(seconds) && seconds > 0) return { kind: "bounded", ageMsMax: Math.ceil(seconds * 1000) };
  throw new InvalidArgumentError("write quorum, linearizable, bounded:5 (seconds) or any.");
}

/** Asks as it was chosen; of one replica's answers the first says on the error stream whose it is and how old at most. */
function askerOf({ session, out, timeoutMs, signal }: Context, consistency: Consistency): Ask {
  let told = false;
  return async (query) => {
    if (consistency.kind === "quorum") return (await confirmedRows(session, query, { timeoutMs, signal })).rows;
    const { rows, replica, index, ageMs } = await rowsFromOne(session, query, consistency, { timeoutMs, signal });
    const age = ageMs === null ? "of unknown age" : `at most ${Math.ceil(ageMs)} ms old`;
    if (!told) {
      out.notice({
        code: "one_replica",
        message: `${replica} alone says so, at index ${index}, ${age}`,
        details: { replica, index, ageMs },
      });
    }
    told = true;
    return rows;
  };
}

async function listDatasets({ out }: Context, ask: Ask): Promise<void> {
  const rows: Readonly<Record<string, unknown>>[] = [];
  for (;;) {
    const after = rows.length === 0 ? "" : String(rows.at(-1)?.["name"]);
    const query = { kind: "datasets", after, limit: ROWS_PER_ANSWER } as const;
    const page = await ask(query);
    rows.push(...page);
    if (page.length < ROWS_PER_ANSWER) break;
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

async function listVersions({ out }: Context, ask: Ask, dataset: string): Promise<void> {
  const versions: VersionAnswer[] = [];
  for (;;) {
    const after = versions.at(-1)?.version ?? 0;
    const query = { kind: "versions", dataset, after, limit: ROWS_PER_ANSWER } as const;
    const rows = await ask(query);
    versions.push(...rows.map((row) => versionAnswer.parse(row)));
    if (rows.length < ROWS_PER_ANSWER) break;
  }
  const tags = await ask({ kind: "tags", dataset });
  const tagsOf = (version: number) => tags.filter((t) => t["version"] === version).map((t) => String(t["tag"]));
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
