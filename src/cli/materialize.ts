/**
 * Owns `shardpact materialize`: a version's shards as plain Arrow files for anybody's tools, every byte verified on the way.
 */
import { createReadStream } from "node:fs";
import { mkdir, stat } from "node:fs/promises";
import { join, resolve as resolvePath } from "node:path";
import type { Command } from "commander";
import { confirmedVersion, resolve } from "../client/open.ts";
import type { ConfirmedVersion } from "../client/types.ts";
import { arrowBatches } from "../loader/arrow-batches.ts";
import { Hasher } from "../merkle/hash.ts";
import { formatDigest } from "../model/bytes.ts";
import { ShardpactError } from "../model/errors.ts";
import { parseRef } from "../model/names.ts";
import { copyShard } from "../shards/copy-shard.ts";
import type { ShardRef } from "../shards/shard-ref.ts";
import { writeShards } from "../shards/write.ts";
import { inGroup, withGroupOptions, type Context, type GroupOptions } from "./context.ts";
import { bytesText, plural } from "./output.ts";
import { createProgress } from "./progress.ts";
import { entriesOf } from "./show.ts";

type Options = GroupOptions & { readonly store?: string[]; readonly split?: string };

const READ_BYTES = 1024 * 1024;

const HELP = `
Files are written under the shards' names, byte for byte as published. One that is there already and whole is left alone.
Where splits are cut by position, --split writes the rows of one as new files; without it each file holds all of its rows.

Examples:
  $ shardpact materialize mnist@v1 ./mnist-v1
  $ python3 -c "import datasets; print(datasets.load_dataset('arrow', data_files='mnist-v1/train/*.arrow'))"`;

export function register(command: Command): void {
  withGroupOptions(command.argument("<ref>", "name, name@v3, name@tag").argument("<dir>", "folder to write to"))
    .option("--store <address...>", "stores to read from before any other")
    .option("--split <name>", "only this split")
    .addHelpText("after", HELP)
    .action((ref: string, dir: string, o: Options) => inGroup(o, (context) => materialize(context, ref, dir, o)));
}

async function materialize(context: Context, text: string, dir: string, o: Options): Promise<void> {
  const { session, stores, out, timeoutMs, signal } = context;
  const resolved = await resolve(session, parseRef(text), { timeoutMs, signal });
  const readable = await stores.readable(o.store ?? []);
  const version = await confirmedVersion(session, resolved, { timeoutMs, signal, stores: readable });
  const split = o.split === undefined ? null : splitOf(version, o.split);
  const folder = resolvePath(dir);
  const isCut = split !== null && resolved.splitRule.kind === "positional";
  const written = isCut
    ? await writeSplit(version, o.split ?? "", folder, signal)
    : await copyShards(context, version, resolved, folder, split);
  out.data({ dataset: version.dataset, version: version.version, root: version.root, folder, ...written });
  const kept = written.present > 0 ? ` (${written.present} there already)` : "";
  out.line(
    `${version.dataset}@v${version.version}  ${plural(written.files, "file")}${kept} · ${bytesText(written.bytes)} verified in ${folder}`,
  );
}

interface Written {
  readonly files: number;
  readonly present: number;
  readonly bytes: number;
}

function splitOf(version: ConfirmedVersion, name: string): number {
  const names = version.splits.map((split) => split.name);
  if (names.includes(name)) return names.indexOf(name);
  throw new ShardpactError("not_found", `${version.dataset}@v${version.version} has no split '${name}'`, {
    details: { split: name, splits: names },
    hint: `Its splits are: ${names.join(", ")}.`,
  });
}

async function copyShards(
  context: Context,
  version: ConfirmedVersion,
  resolved: Parameters<typeof entriesOf>[1],
  folder: string,
  split: number | null,
): Promise<Written> {
  const totals = resolved.version.totals.filter((total) => split === null || total.split === split);
  const totalBytes = totals.reduce((sum, total) => sum + total.bytes, 0);
  const where = { dataset: version.dataset, version: version.version };
  const progress = createProgress(context.out.json);
  let [files, present, bytes] = [0, 0, 0];
  try {
    for await (const entry of entriesOf(context, resolved)) {
      if (split !== null && entry.split !== split) continue;
      files += 1;
      const path = join(folder, entry.name);
      if (await isThere(path, entry)) present += 1;
      else
        await copyShard(
          { entry, where, stores: version.stores, signal: context.signal, onPassedOver: version.onPassedOver },
          path,
        );
      progress.update("verify", (bytes += entry.bytes), totalBytes);
    }
  } finally {
    progress.stop();
  }
  return { files, present, bytes };
}

async function isThere(path: string, entry: ShardRef): Promise<boolean> {
  const info = await stat(path).catch(() => null);
  if (info?.size !== entry.bytes) return false;
  const hasher = new Hasher();
  for await (const chunk of createReadStream(path, { highWaterMark: READ_BYTES })) hasher.update(chunk as Uint8Array);
  return formatDigest(hasher.digest()) === entry.digest;
}

async function writeSplit(
  version: ConfirmedVersion,
  split: string,
  folder: string,
  signal: AbortSignal,
): Promise<Written> {
  const into = join(folder, split);
  await mkdir(into, { recursive: true });
  const written = await writeShards(arrowBatches(version, { split, signal }), { folder: into, signal });
  const sizes = await Promise.all(written.map(async ({ path }) => (await stat(path)).size));
  return { files: written.length, present: 0, bytes: sizes.reduce((sum, size) => sum + size, 0) };
}
