/**
 * Owns `shardpact audit replay`: what a run really consumed, from the receipts in the log, recomputed.
 */
import { createWriteStream } from "node:fs";
import { once } from "node:events";
import type { Command } from "commander";
import type { AnswerRow } from "../client/answers.ts";
import { confirmedVersion, resolve } from "../client/open.ts";
import { confirmedRows } from "../client/runs.ts";
import type { ConfirmedVersion } from "../client/types.ts";
import type { Receipt } from "../loader/receipt.ts";
import {
  attemptsOf,
  holdsOrder,
  parseReceipt,
  pathTo,
  replayBytes,
  seenRows,
  splitOf,
  type Attempt,
} from "../loader/replay.ts";
import { runPlan } from "../model/commands.ts";
import { ShardpactError } from "../model/errors.ts";
import { inGroup, withGroupOptions, type Context, type GroupOptions } from "./context.ts";
import { count, EXIT, short, table } from "./output.ts";

type Options = GroupOptions & { readonly checkpoint?: string; readonly rows?: string; readonly bytes?: boolean };

const HELP = `
Attempts form a tree: each names the state that it resumed from. What a model saw is the path from its checkpoint to zero.
--bytes gathers the data again from the stores and compares its digest, for receipts made with \`receipt: "bytes"\`.
Exits with 1 when a digest does not hold.

Examples:
  $ shardpact audit replay exp-42
  $ shardpact audit replay exp-42 --checkpoint b3:9f2c… --rows seen.ndjson    # {"epoch":0,"position":0,"row":4711}
  $ shardpact audit replay exp-42 --bytes`;

export function registerReplay(command: Command): void {
  withGroupOptions(command.summary("recompute what a run consumed").argument("<run>", "its id"))
    .option("--checkpoint <digest>", "what the model of this checkpoint saw")
    .option("--rows <file>", "write every row, in order, as JSON lines")
    .option("--bytes", "gather the data again, and compare its digest")
    .addHelpText("after", HELP)
    .action((run: string, o: Options) => inGroup(o, (context) => replay(context, run, o)));
}

async function replay(context: Context, run: string, o: Options): Promise<void> {
  const { session, stores, out, timeoutMs, signal } = context;
  const { rows } = await confirmedRows(session, { kind: "run", run }, { timeoutMs, signal });
  const [head, ...told] = rows;
  const plan = runPlan.parse(head?.["plan"]);
  const inOrder = told.toSorted((a: AnswerRow, b: AnswerRow) => Number(a["index"]) - Number(b["index"]));
  const receipts = inOrder.map((row) => parseReceipt(row["receipt"]));
  if (receipts.length === 0) throw new ShardpactError("not_found", `run '${run}' has reported no receipt yet`);
  const ref = { dataset: plan.dataset, target: { kind: "version" as const, version: plan.version } };
  const resolved = await resolve(session, ref, { timeoutMs, signal });
  const readable = await stores.readable();
  const version = await confirmedVersion(session, resolved, { timeoutMs, signal, stores: readable });
  const attempts = attemptsOf(receipts);
  const path = pathTo(receipts, lastOf(receipts, attempts, o.checkpoint));
  const findings = await check(version, attempts, o.bytes === true);
  const spans = path.flatMap((receipt) => receipt.spans);
  const total = spans.reduce((sum, { epochs, from, to }) => sum + epochs * (to - from), 0);
  if (o.rows !== undefined) await writeRows(o.rows, version, path);

  out.data({
    run,
    plan,
    attempts,
    path: path.map(({ state, spans: part }) => ({ state, spans: part })),
    rows: total,
    findings,
  });
  out.line(
    `${run}  ${plan.dataset}@v${plan.version} ${short(plan.root)} · world ${plan.world} · batch ${plan.batchSize}`,
  );
  out.line(
    table(
      ["attempt", "resumed from", "rank", "reached", "rows", "order", "bytes", "checkpoints"],
      attempts.map(lineOf(findings)),
    ),
  );
  const saw = o.checkpoint === undefined ? "the last attempt's model" : `the model of ${short(o.checkpoint)}`;
  out.line(`${saw} saw ${count(total)} rows in ${count(path.length)} ${path.length === 1 ? "attempt" : "attempts"}`);
  for (const { receipt, problem } of findings) out.line(`✗ attempt ${receipt.slice(0, 8)}: ${problem}`);
  if (findings.length > 0) process.exitCode = EXIT.found;
}

function lastOf(receipts: readonly Receipt[], attempts: readonly Attempt[], checkpoint: string | undefined): Receipt {
  if (checkpoint === undefined) return attempts.at(-1)?.last as Receipt;
  const found = receipts.find((receipt) => receipt.checkpoint?.startsWith(checkpoint) ?? false);
  if (found) return found;
  const known = receipts.flatMap((receipt) => receipt.checkpoint ?? []);
  throw new ShardpactError("not_found", `no receipt of the run names the checkpoint ${checkpoint}`, {
    details: { checkpoint, known },
    hint: known.length === 0 ? "None of its receipts names one." : `Known are: ${known.map(short).join(", ")}.`,
  });
}

interface Finding {
  readonly receipt: string;
  readonly problem: string;
}

async function check(version: ConfirmedVersion, attempts: readonly Attempt[], withBytes: boolean): Promise<Finding[]> {
  const findings: Finding[] = [];
  for (const { id, last, all } of attempts) {
    for (const receipt of all) {
      if (!holdsOrder(receipt)) findings.push({ receipt: id, problem: "its order digest is not that of its spans" });
    }
    splitOf(version, last.state);
    if (!withBytes || last.bytesDigest === null) continue;
    const got = await replayBytes(version, last);
    if (got !== last.bytesDigest) {
      findings.push({
        receipt: id,
        problem: `it delivered bytes of ${short(last.bytesDigest)}; the data gives ${short(got)}`,
      });
    }
  }
  return findings;
}

function lineOf(findings: readonly Finding[]): (attempt: Attempt) => string[] {
  return ({ id, parent, last, all }) => {
    const rows = last.spans.reduce((sum, { epochs, from, to }) => sum + epochs * (to - from), 0);
    const { epoch, offset } = last.state;
    const checkpoints = new Set(all.flatMap((receipt) => receipt.checkpoint ?? []));
    return [
      id.slice(0, 8),
      parent === null ? "zero" : short(parent),
      String(last.rank),
      `epoch ${epoch} + ${count(offset)}`,
      count(rows),
      findings.some(({ receipt }) => receipt === id) ? "✗" : "✓",
      last.bytesDigest === null ? "-" : short(last.bytesDigest),
      String(checkpoints.size),
    ];
  };
}

async function writeRows(file: string, version: ConfirmedVersion, path: readonly Receipt[]): Promise<void> {
  const out = createWriteStream(file);
  for (const { state, spans } of path) {
    const { rows } = splitOf(version, state);
    for (const seen of seenRows(state, spans, rows)) {
      if (!out.write(`${JSON.stringify(seen)}\n`)) await once(out, "drain");
    }
  }
  out.end();
  await once(out, "finish");
}
