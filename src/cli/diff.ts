/**
 * Owns `shardpact diff`: which shards, splits and schema differ between two versions of a dataset.
 *
 * Pages with equal digests hold equal shards: only the others are fetched.
 */
import type { Command } from "commander";
import { fetchManifest, fetchPage, type VersionHead } from "../client/manifest.ts";
import { resolve, type Resolved } from "../client/open.ts";
import type { ManifestPage, ShardEntry } from "../client/types.ts";
import { ShardpactError } from "../model/errors.ts";
import { parseRef } from "../model/names.ts";
import { inGroup, withGroupOptions, type Context, type GroupOptions } from "./context.ts";
import { bytesText, count, plural, table } from "./output.ts";

export function register(command: Command): void {
  withGroupOptions(command.argument("<from>", "reference of the older version").argument("<to>", "of the newer one"))
    .addHelpText(
      "after",
      "\nExamples:\n  $ shardpact diff mnist@v1 mnist@v2\n  $ shardpact diff mnist@prod mnist --json",
    )
    .action((from: string, to: string, o: GroupOptions) => inGroup(o, (context) => diff(context, from, to)));
}

interface Side {
  readonly resolved: Resolved;
  readonly head: VersionHead;
  readonly manifest: readonly ManifestPage[];
}

async function diff(context: Context, fromText: string, toText: string): Promise<void> {
  const { out } = context;
  const from = await openSide(context, fromText);
  const to = await openSide(context, toText);
  const [a, b] = [from.resolved.version, to.resolved.version];
  if (a.dataset !== b.dataset) {
    throw new ShardpactError("invalid_argument", `${fromText} and ${toText} are versions of different datasets`);
  }
  const before = await differingEntries(context, from, to);
  const after = await differingEntries(context, to, from);
  const added = [...after.values()].filter((e) => !before.has(e.name));
  const removed = [...before.values()].filter((e) => !after.has(e.name));
  const changed = [...after.values()].filter((e) => before.has(e.name) && !isSame(before.get(e.name), e));
  const schema = a.schema === b.schema ? "same" : "differs";
  const classes = a.classes === b.classes ? "same" : "differs";
  out.data({
    from: `v${a.version}`,
    to: `v${b.version}`,
    sameRoot: a.root === b.root,
    schema,
    classes,
    added,
    removed,
    changed,
  });
  out.line(
    `${a.dataset}@v${a.version} → ${b.dataset}@v${b.version}: ${a.root === b.root ? "the same root" : "different roots"}`,
  );
  out.line(`schema ${schema}, class vocabularies ${classes}, splits ${a.splits.join(", ")} → ${b.splits.join(", ")}`);
  out.line(
    `${plural(added.length, "shard")} added, ${count(removed.length)} removed, ${count(changed.length)} changed`,
  );
  const rows = [
    ...removed.map((e) => ["-", e.name, e.rows, bytesText(e.bytes), e.digest]),
    ...changed.map((e) => ["~", e.name, e.rows, bytesText(e.bytes), e.digest]),
    ...added.map((e) => ["+", e.name, e.rows, bytesText(e.bytes), e.digest]),
  ];
  if (rows.length > 0) out.line(`\n${table(["", "shard", "rows", "bytes", "digest"], rows)}`);
}

async function openSide({ session, timeoutMs, signal }: Context, text: string): Promise<Side> {
  const resolved = await resolve(session, parseRef(text), { timeoutMs, signal });
  const { version, confirmation } = resolved;
  const head: VersionHead = { ...version, asOf: confirmation.index, splitCount: version.splits.length };
  return { resolved, head, manifest: await fetchManifest(session, head, { timeoutMs, signal }) };
}

/** Shards of `side` by name, without those on pages that the other side has too. */
async function differingEntries(
  { session, timeoutMs, signal }: Context,
  side: Side,
  other: Side,
): Promise<Map<string, ShardEntry>> {
  const shared = new Set<string>(other.manifest.map((entry) => entry.page));
  const entries = new Map<string, ShardEntry>();
  for (const [position, page] of side.manifest.entries()) {
    if (shared.has(page.page)) continue;
    for (const entry of await fetchPage(session, side.head, position, page, { timeoutMs, signal })) {
      entries.set(entry.name, entry);
    }
  }
  return entries;
}

function isSame(a: ShardEntry | undefined, b: ShardEntry): boolean {
  return a?.digest === b.digest && a.split === b.split;
}
