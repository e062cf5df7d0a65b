/**
 * Owns `shardpact publish`: files become the next version of a dataset.
 */
import { readFileSync } from "node:fs";
import { InvalidArgumentError, Option, type Command } from "commander";
import { z } from "zod";
import { publish as publishVersion, type PublishOptions, type VersionInfo } from "../client/publish.ts";
import { ShardpactError } from "../model/errors.ts";
import { datasetName } from "../model/names.ts";
import { inGroup, withGroupOptions, type Context, type GroupOptions } from "./context.ts";
import { bytesText, count, plural, short } from "./output.ts";
import { createProgress } from "./progress.ts";

type Options = GroupOptions & {
  readonly split?: Readonly<Record<string, number>>;
  readonly key?: string[];
  readonly shuffle?: bigint;
  readonly schema?: Readonly<Record<string, string>>;
  readonly classes?: string[];
  readonly message?: string;
  readonly expectHead?: ExpectedVersion;
  readonly append?: boolean;
  readonly rebase?: boolean;
  readonly store?: string;
};

const EXAMPLES = `
The version holds these files and no others, unless you --append; files that are in the store already are checked and not sent again.
Arrow files are published as they are. Parquet, CSV, NDJSON (these need @duckdb/node-api) and folders of images are written
as Arrow files first, and so is whatever is dealt by a --key or shuffled: the same input gives the same root everywhere.
Folders train/ val/ test/ become splits. Without them, --split holds rows out by a --key, or by their place in each Arrow file.
The files are copied into the shard store, under the digests of their bytes; the originals are not needed any more.

Examples:
  $ shardpact publish mnist ./digits
  $ shardpact publish trips trips.parquet --split train=0.9,val=0.1 --key rider --shuffle 1
  $ shardpact publish pets ./photos                          # cats/1.jpg: image, path and label
  $ shardpact publish flights flights.arrow --split train=0.9,val=0.1 --message "2025, all carriers"
  $ shardpact publish mnist ./digits --expect-head v3        # fails when somebody else was first`;

export function register(command: Command): void {
  withGroupOptions(command.argument("<dataset>", "its name").argument("<source...>", "files, or folders of them"))
    .addOption(new Option("--split <shares>", "hold rows out: train=0.9,val=0.1").argParser(parseShares))
    .option("--key <column...>", "deal rows to the splits by these columns: an entity stays in its split for ever")
    .addOption(new Option("--shuffle <seed>", "write the rows in an order drawn by lot").argParser(parseSeed))
    .addOption(
      new Option("--schema <types>", 'DuckDB types: \'{"zip": "VARCHAR"}\', or a JSON file').argParser(parseTypes),
    )
    .option("--classes <column...>", "text columns that get an agreed class vocabulary")
    .option("-m, --message <text>", "what this version is; kept with it")
    .addOption(new Option("--expect-head <version>", "the head must be this one: v3, or none").argParser(parseExpected))
    .option("--append", "on top of the head's shards, not in their place; with --expect-head a script can be run again")
    .option("--rebase", "when somebody else commits first, commit on top of theirs")
    .option("--store <dir>", "where the shards go; default: the settings', else the replicas' own")
    .addHelpText("after", EXAMPLES)
    .action((dataset: string, source: string[], o: Options) =>
      inGroup(o, (context) => publish(context, dataset, source, o)),
    );
}

async function publish(context: Context, dataset: string, source: readonly string[], o: Options): Promise<void> {
  const { session, stores, out, timeoutMs, signal } = context;
  const named = datasetName.safeParse(dataset);
  if (!named.success) {
    throw new ShardpactError(
      "invalid_argument",
      `'${dataset}': ${named.error.issues[0]?.message ?? "no dataset name"}`,
    );
  }
  const store = await stores.writable(o.store === undefined ? [] : [o.store]);
  const progress = createProgress(out.json);
  const warnings: string[] = [];
  const options: PublishOptions = {
    timeoutMs,
    signal,
    ...(o.split === undefined ? {} : { split: o.split }),
    ...(o.key === undefined ? {} : { key: o.key }),
    ...(o.shuffle === undefined ? {} : { shuffle: o.shuffle }),
    ...(o.schema === undefined ? {} : { types: o.schema }),
    ...(o.classes === undefined ? {} : { classes: o.classes }),
    ...(o.message === undefined ? {} : { message: o.message }),
    ...(o.expectHead === undefined ? {} : { expectedHead: o.expectHead === "none" ? null : o.expectHead }),
    append: o.append === true,
    rebase: o.rebase === true,
    onProgress: ({ phase, doneBytes, totalBytes, warning }) => {
      if (warning !== undefined) {
        warnings.push(warning);
        progress.warn(warning);
      }
      progress.update(phase, doneBytes, totalBytes, phase === "import" ? "rows" : "bytes");
    },
  };
  let info: VersionInfo;
  try {
    info = await publishVersion(session, store, dataset, source, options);
  } finally {
    progress.stop();
  }
  out.data({ ...info, store: store.url, warnings });
  out.line(lineOf(info));
  out.line(`shards are in ${store.url}`);
}

function lineOf(info: VersionInfo): string {
  const what = `${info.dataset}@v${info.version}`;
  const shards = `${plural(info.shards, "shard")}${info.shardsNew < info.shards ? ` (${count(info.shardsNew)} new)` : ""}`;
  const content = `${count(info.rows)} rows · ${bytesText(info.bytes)} · ${shards} · root ${short(info.root)}`;
  const outcome = info.unchanged ? `unchanged since index ${info.index}` : `committed at index ${info.index}`;
  return `${what}  ${content}  ${outcome}`;
}

function parseShares(text: string): Record<string, number> {
  const shares = text.split(",").map((part): [string, number] => {
    const [name = "", share = ""] = part.split("=");
    const value = Number(share);
    if (name !== "" && share !== "" && Number.isFinite(value)) return [name.trim(), value];
    throw new InvalidArgumentError("write train=0.9,val=0.1.");
  });
  return Object.fromEntries(shares);
}

function parseSeed(text: string): bigint {
  if (/^\d{1,19}$/.test(text)) return BigInt(text);
  throw new InvalidArgumentError("write a whole number.");
}

function parseTypes(text: string): Record<string, string> {
  try {
    const json: unknown = JSON.parse(text.trimStart().startsWith("{") ? text : readFileSync(text, "utf8"));
    return z.record(z.string(), z.string()).parse(json);
  } catch (cause) {
    const said = cause instanceof Error ? cause.message : String(cause);
    throw new InvalidArgumentError(`write '{"column": "TYPE"}' or name a file that holds it (${said.slice(0, 200)}).`);
  }
}

/** A version, or "none": commander takes a null for a missing value. */
export type ExpectedVersion = number | "none";

/** `v3`, `3` or `none`. */
export function parseExpected(text: string): ExpectedVersion {
  if (text === "none") return text;
  const digits = /^v?([1-9][0-9]{0,8})$/.exec(text)?.[1];
  if (digits !== undefined) return Number(digits);
  throw new InvalidArgumentError("write v2, or none.");
}
