/**
 * Owns `shardpact audit replay`: what a run really consumed, from the receipts in the log, recomputed.
 */
import { createWriteStream } from "node:fs";
import { Readable } from "node:stream";
import { pipeline } from "node:stream/promises";
import type { Command } from "commander";
import { confirmedVersion, resolve } from "../client/open.ts";
import { confirmedRows } from "../client/runs.ts";
import { readRunEpoch } from "../client/run-calls.ts";
import type { ConfirmedVersion, RunEpoch } from "../client/types.ts";
import { type LoggedEntry, type LoggedReceipt, readReceipts } from "../loader/receipt-log.ts";
import type { Receipt } from "../loader/receipt.ts";
import {
  attemptsOf,
  holdsOrder,
  pathTo,
  replayBytes,
  seenRows,
  strayEpochs,
  trainedVersions,
  type Attempt,
  type VersionsByRoot,
} from "../loader/replay.ts";
import type { Digest } from "../model/bytes.ts";
import { runPlan, type RunPlan } from "../model/commands.ts";
import { isShardpactError, ShardpactError } from "../model/errors.ts";
import { inGroup, withGroupOptions, type Context, type GroupOptions } from "./context.ts";
import { count, EXIT, short, table } from "./output.ts";

type Options = GroupOptions & { readonly checkpoint?: string; readonly rows?: string; readonly bytes?: boolean };

const EPOCHS_PER_ANSWER = 200;

const HELP = `
Attempts form a tree: each names the state that it resumed from. What a model saw is the path from its checkpoint to zero.
--bytes gathers the data again from the stores and compares its digest, for receipts made with \`receipt: "bytes"\`.
Exits with 1 when a digest does not hold.

Examples:
  $ shardpact audit replay exp-42
  $ shardpact audit replay exp-42 --checkpoint b3:9f2c… --rows seen.ndjson    # {"epoch":0,"position":0,"row":4711}
  $ shardpact audit replay exp-42 --bytes
  $ shardpact audit replay exp-42 exp-42b     # exp-42b went on where exp-42 stood, with another number of ranks`;

export function registerReplay(command: Command): void {
  withGroupOptions(
    command.summary("recompute what a run consumed").argument("<runs...>", "its id; of several, in any order"),
  )
    .option("--checkpoint <digest>", "what the model of this checkpoint saw")
    .option("--rows <file>", "write every row, in order, as JSON lines")
    .option("--bytes", "gather the data again, and compare its digest")
    .addHelpText("after", HELP)
    .action((runs: string[], o: Options) => inGroup(o, (context) => replay(context, runs, o)));
}

async function replay(context: Context, runs: readonly string[], o: Options): Promise<void> {
  const { out } = context;
  const told = await Promise.all([...new Set(runs)].map((run) => readRun(context, run)));
  const receipts = told
    .flatMap((run) => run.receipts)
    .toSorted((a, b) => a.index - b.index)
    .map(({ receipt }) => receipt);
  const versions = await openAll(context, datasetOf(told), receipts);
  const attempts = attemptsOf(receipts);
  const path = pathTo(receipts, lastOf(receipts, attempts, o.checkpoint));
  const findings = await check(versions, attempts, o.bytes === true);
  findings.push(...told.flatMap(strayFindings));
  const spans = path.flatMap((receipt) => receipt.spans);
  const total = spans.reduce((sum, { epochs, from, to }) => sum + epochs * (to - from), 0);
  if (o.rows !== undefined) await writeRows(o.rows, versions, path);

  out.data({
    runs: told.map(({ run, plan, epochs }) => ({ run, plan, epochs })),
    attempts,
    path: path.map(({ state, spans: part }) => ({ state, spans: part })),
    rows: total,
    findings,
  });
  for (const run of told) tellRun(context, run);
  out.line(
    table(
      ["attempt", "resumed from", "rank", "reached", "rows", "order", "bytes", "checkpoints"],
      attempts.map(lineOf(findings, o.bytes === true)),
    ),
  );
  const saw = o.checkpoint === undefined ? "the last attempt's model" : `the model of ${short(o.checkpoint)}`;
  out.line(`${saw} saw ${count(total)} rows in ${count(path.length)} ${path.length === 1 ? "attempt" : "attempts"}`);
  for (const { receipt, problem } of findings) out.line(`✗ attempt ${receipt.slice(0, 8)}: ${problem}`);
  if (findings.length > 0) process.exitCode = EXIT.found;
}

/** What the log holds of a run. */
interface ToldRun {
  readonly run: string;
  readonly plan: RunPlan;
  /** Where the run follows its dataset: what the ranks agreed on. */
  readonly epochs: readonly RunEpoch[];
  readonly receipts: readonly LoggedReceipt[];
}

async function readRun(context: Context, run: string): Promise<ToldRun> {
  const { session, timeoutMs, signal } = context;
  const { rows } = await confirmedRows(session, { kind: "run", run }, { timeoutMs, signal });
  const plan = runPlan.parse(rows[0]?.["plan"]);
  const receipts = await receiptsOf(context, run);
  if (receipts.length === 0) throw new ShardpactError("not_found", `run '${run}' has reported no receipt yet`);
  return { run, plan, epochs: plan.follow ? await agreedEpochs(context, run) : [], receipts };
}

async function receiptsOf({ session, timeoutMs, signal }: Context, run: string): Promise<ToldRun["receipts"]> {
  const entries: LoggedEntry[] = [];
  for (;;) {
    const query = { kind: "receipts", run, after: entries.at(-1)?.index ?? 0 } as const;
    const { rows } = await confirmedRows(session, query, { timeoutMs, signal });
    if (rows.length === 0) return readReceipts(entries);
    entries.push(...rows.map((row) => ({ index: Number(row["index"]), receipt: row["receipt"] })));
  }
}

/** @throws ShardpactError `invalid_argument` for runs of several */
function datasetOf(told: readonly ToldRun[]): string {
  const datasets = [...new Set(told.map(({ plan }) => plan.dataset))];
  const [dataset = ""] = datasets;
  if (datasets.length <= 1) return dataset;
  throw new ShardpactError("invalid_argument", `these runs train on several datasets: ${datasets.join(", ")}`, {
    hint: "Name runs of which one goes on where the other stood.",
  });
}

function tellRun({ out }: Context, { run, plan, epochs }: ToldRun): void {
  const { dataset, version, root, world, batchSize } = plan;
  out.line(`${run}  ${dataset}@v${version} ${short(root)} · world ${world} · batch ${batchSize}`);
  for (const line of movesOf(dataset, epochs)) out.line(line);
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

/** All versions that the receipts speak of, confirmed. */
async function openAll(
  { session, stores, timeoutMs, signal }: Context,
  dataset: string,
  receipts: readonly Receipt[],
): Promise<VersionsByRoot> {
  const readable = await stores.readable();
  const versions = new Map<Digest, ConfirmedVersion>();
  for (const { root } of trainedVersions(receipts)) {
    const resolved = await resolve(session, { dataset, target: { kind: "root", root } }, { timeoutMs, signal });
    versions.set(root, await confirmedVersion(session, resolved, { timeoutMs, signal, stores: readable }));
  }
  return versions;
}

/** What the ranks agreed on, epoch by epoch. */
async function agreedEpochs({ session, timeoutMs, signal }: Context, run: string): Promise<RunEpoch[]> {
  const epochs: RunEpoch[] = [];
  for (;;) {
    const after = epochs.at(-1)?.epoch ?? -1;
    const query = { kind: "run_epochs", run, after, limit: EPOCHS_PER_ANSWER } as const;
    const { rows } = await confirmedRows(session, query, { timeoutMs, signal });
    epochs.push(...rows.map(readRunEpoch));
    if (rows.length < EPOCHS_PER_ANSWER) return epochs;
  }
}

/** One line for each version that the run came to. */
function movesOf(dataset: string, epochs: readonly RunEpoch[]): string[] {
  const moves = epochs.filter(({ version }, i) => version !== epochs[i - 1]?.version);
  return moves.map(({ epoch, version, root }) => `  from epoch ${epoch} on  ${dataset}@v${version} ${short(root)}`);
}

interface Finding {
  readonly receipt: string;
  readonly what: "order" | "bytes";
  readonly problem: string;
}

async function check(versions: VersionsByRoot, attempts: readonly Attempt[], withBytes: boolean): Promise<Finding[]> {
  const findings: Finding[] = [];
  for (const { id, last, all } of attempts) {
    for (const receipt of all) {
      if (!holdsOrder(receipt))
        findings.push({ receipt: id, what: "order", problem: "its order digest is not that of its spans" });
    }
    if (!withBytes || last.bytesDigest === null) continue;
    const got = await replayBytes(versions, last);
    if (got !== last.bytesDigest) {
      findings.push({
        receipt: id,
        what: "bytes",
        problem: `it delivered bytes of ${short(last.bytesDigest)}; the data gives ${short(got)}`,
      });
    }
  }
  return findings;
}

/** Epochs that an attempt trained on another version than the run had agreed on. */
function strayFindings({ plan, receipts, epochs }: ToldRun): Finding[] {
  if (!plan.follow) return [];
  const agreed = new Map(epochs.map(({ epoch, root }) => [epoch, root]));
  return attemptsOf(receipts.map(({ receipt }) => receipt)).flatMap(({ id, all }) =>
    all
      .flatMap((receipt) => strayEpochs(receipt, agreed))
      .map(({ epoch, root }) => ({
        receipt: id,
        what: "order" as const,
        problem: `it trained epoch ${epoch} on ${short(root)}; the run agreed on ${short(agreed.get(epoch) ?? "nothing")}`,
      })),
  );
}

function lineOf(findings: readonly Finding[], withBytes: boolean): (attempt: Attempt) => string[] {
  const bytesOf = (id: string, { bytesDigest }: Receipt): string => {
    if (bytesDigest === null) return "-";
    if (!withBytes) return short(bytesDigest);
    return `${findings.some(({ receipt, what }) => receipt === id && what === "bytes") ? "✗" : "✓"} ${short(bytesDigest)}`;
  };
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
      findings.some(({ receipt, what }) => receipt === id && what === "order") ? "✗" : "✓",
      bytesOf(id, last),
      String(checkpoints.size),
    ];
  };
}

async function writeRows(file: string, versions: VersionsByRoot, path: readonly Receipt[]): Promise<void> {
  const lines = function* (): Generator<string> {
    for (const receipt of path) for (const seen of seenRows(receipt, versions)) yield `${JSON.stringify(seen)}\n`;
  };
  try {
    await pipeline(Readable.from(lines()), createWriteStream(file));
  } catch (cause) {
    if (isShardpactError(cause)) throw cause;
    throw new ShardpactError("store_failed", `the rows cannot be written to ${file}: ${(cause as Error).message}`, {
      details: { file },
      cause,
      hint: "Name a file in a folder that is there.",
    });
  }
}
