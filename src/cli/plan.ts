/**
 * Owns `shardpact plan`: what training on a version will cost and how well it is shuffled, before any training hour.
 */
import { InvalidArgumentError, Option, type Command } from "commander";
import { resolve } from "../client/open.ts";
import { refuseRevoked } from "../client/answers.ts";
import { summarizeSplits } from "../client/splits.ts";
import { explainPlan, worldsToCompare, type Explanation } from "../loader/explain.ts";
import type { LastRule } from "../loader/order/slices.ts";
import type { Strength } from "../loader/order/spec.ts";
import { planLoader } from "../loader/plan.ts";
import { parseRef } from "../model/names.ts";
import { inGroup, withGroupOptions, type Context, type GroupOptions } from "./context.ts";
import { bytesText, table } from "./output.ts";
import { entriesOf } from "./show.ts";

interface Options extends GroupOptions {
  readonly batch: number;
  readonly world: number;
  readonly rank: number;
  readonly split?: string;
  readonly shuffle: Strength;
  readonly window?: number;
  readonly lanes?: number;
  readonly seed: string;
  readonly last?: LastRule;
  readonly memory?: number;
  readonly randomReads?: boolean;
}

export function register(command: Command): void {
  withGroupOptions(command.argument("<ref>", "name, name@v3, name@tag or name@b3:<root>"))
    .addOption(new Option("--batch <rows>", "rows of a batch on one rank").argParser(count).makeOptionMandatory())
    .addOption(new Option("--world <ranks>", "ranks that train together").argParser(count).default(1))
    .addOption(new Option("--rank <rank>", "the rank that is asked about").argParser(count).default(0))
    .option("--split <name>", "when the version has several (default: train)")
    .addOption(
      new Option("--shuffle <strength>", "none, block, window or full")
        .choices(["none", "block", "window", "full"])
        .default("window"),
    )
    .addOption(new Option("--window <MiB>", "memory of the shuffle window").argParser(mebibytes))
    .addOption(new Option("--lanes <lanes>", "lanes of the window, a power of two (default: 64)").argParser(count))
    .option("--seed <number>", "a u64", "0")
    .addOption(new Option("--last <rule>", "partial, drop or pad").choices(["partial", "drop", "pad"]))
    .addOption(new Option("--memory <MiB>", "what a loader may hold").argParser(mebibytes))
    .option("--random-reads", "allow a full shuffle beyond the memory")
    .addHelpText(
      "after",
      "\nNothing is read but the version's totals. D compares class counts of steps with chance, on data sorted by class:\n1 is ideal.\n\nExample:\n  $ shardpact plan mnist@v1 --batch 128 --world 4",
    )
    .action((ref: string, o: Options) => inGroup(o, (context) => plan(context, ref, o)));
}

function count(text: string): number {
  const value = Number(text);
  if (Number.isSafeInteger(value) && value >= 0) return value;
  throw new InvalidArgumentError("write a number.");
}

function mebibytes(text: string): number {
  const value = Number(text) * 1024 * 1024;
  if (Number.isFinite(value) && value >= 1) return Math.round(value);
  throw new InvalidArgumentError("write mebibytes, more than 0.");
}

async function plan(context: Context, text: string, o: Options): Promise<void> {
  const { session, out, timeoutMs, signal } = context;
  const resolved = await resolve(session, parseRef(text), { timeoutMs, signal });
  const { version, splitRule, revocation } = resolved;
  refuseRevoked(`${version.dataset}@v${version.version}`, revocation);
  const { splits } = await summarizeSplits(version, splitRule, () => pagesOf(context, resolved));
  const { window: windowBytes, lanes, last, memory } = o;
  const split = o.split ?? (splits.length > 1 ? splits.find(({ name }) => name === "train")?.name : undefined);
  const planned = planLoader(
    { ...version, splits, splitRule },
    {
      batchSize: o.batch,
      world: o.world,
      rank: o.rank,
      seed: o.seed,
      shuffle: {
        strength: o.shuffle,
        ...(windowBytes === undefined ? {} : { windowBytes }),
        ...(lanes === undefined ? {} : { lanes }),
      },
      ...(split === undefined ? {} : { split }),
      ...(last === undefined ? {} : { last }),
      ...(memory === undefined ? {} : { memory }),
      allowRandomReads: o.randomReads === true,
    },
  );
  const explained = explainPlan(planned, worldsToCompare(planned.world));
  out.data(explained);
  for (const line of linesOf(explained)) out.line(line);
}

async function* pagesOf(context: Context, resolved: Parameters<typeof entriesOf>[1]) {
  for await (const entry of entriesOf(context, resolved)) yield [entry];
}

function linesOf(e: Explanation): string[] {
  const { order, quality } = e;
  const rest = e.dropped > 0 ? `, ${e.dropped} rows dropped` : e.padded > 0 ? `, ${e.padded} rows padded` : "";
  const lines = [
    `${e.dataset}  split ${e.split}  ${e.rows.toLocaleString("en")} rows, ${bytesText(e.bytes)}`,
    `  order     ${order.strength}, seed ${order.seed}: ${e.blocks} blocks of ${order.n} rows (${bytesText(e.blockBytes)}), ${order.K} lanes of ${order.g}`,
    `  epoch     ${e.steps} steps of ${e.world} × ${e.batchSize} rows${rest}`,
    `  memory    ${bytesText(e.memoryNeededBytes)} needed, ${bytesText(e.memoryKeptBytes)} used, ${bytesText(e.memoryMaxBytes)} allowed`,
    `  rank ${e.rank}    reads about ${bytesText(e.rankBytes)} an epoch`,
  ];
  if (quality) {
    const { D, blocksPerBatch, neighboursKept, pairsKept, pairsByChance, countedRows } = quality;
    lines.push(
      `  shuffle   D ${D.toFixed(2)} on data sorted by class (1 is chance), ${blocksPerBatch.toFixed(0)} blocks in a batch`,
      `            neighbours kept ${percent(neighboursKept)}, pairs kept ${pairsKept === null ? "not counted" : percent(pairsKept)} (chance ${percent(pairsByChance)})`,
      `            counted over ${countedRows.toLocaleString("en")} rows`,
    );
  }
  lines.push(...e.notes.map((note) => `  note      ${note}`), "");
  const rows = e.reads.map((r) => [r.world, `${r.amplification.toFixed(2)} ×`, percent(r.rankShare)]);
  lines.push(table(["ranks", "blocks read by all ÷ blocks", "most that one rank reads"], rows));
  return lines;
}

const percent = (share: number): string => `${(share * 100).toFixed(share < 0.01 ? 3 : 1)} %`;
