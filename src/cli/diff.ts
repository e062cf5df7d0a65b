/**
 * Owns `shardpact diff`: which shards, splits and schema differ between two versions of a dataset.
 *
 * Pages with equal digests hold equal shards: only the others are fetched, and no more than a part of them is held.
 */
import type { Command } from "commander";
import { fetchManifest, fetchPage, type VersionHead } from "../client/manifest.ts";
import { resolve, type Resolved } from "../client/open.ts";
import type { ManifestPage, ShardEntry } from "../client/types.ts";
import { ShardpactError } from "../model/errors.ts";
import { parseRef } from "../model/names.ts";
import { type Change, changedShards } from "./changed-shards.ts";
import { inGroup, withGroupOptions, type Context, type GroupOptions } from "./context.ts";
import { bytesText, count, plural, table } from "./output.ts";

/** Of each kind of change; the counts are of all. */
const LISTED_MAX = 1_000;

export function register(command: Command): void {
  withGroupOptions(command.argument("<from>", "reference of the older version").argument("<to>", "of the newer one"))
    .addHelpText(
      "after",
      `\nUp to ${count(LISTED_MAX)} shards of each kind are listed; counts are of all.\n\nExamples:\n  $ shardpact diff mnist@v1 mnist@v2\n  $ shardpact diff mnist@prod mnist --json`,
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
  const lists: Record<Change, ShardEntry[]> = { removed: [], changed: [], added: [] };
  const counts: Record<Change, number> = { removed: 0, changed: 0, added: 0 };
  const [before, after] = [differingPages(from, to), differingPages(to, from)];
  const expected = before.shards + after.shards;
  for await (const [change, entry] of changedShards(
    fetch(context, from, before),
    fetch(context, to, after),
    expected,
  )) {
    if (++counts[change] <= LISTED_MAX) lists[change].push(entry);
  }
  const schema = a.schema === b.schema ? "same" : "differs";
  const classes = a.classes === b.classes ? "same" : "differs";
  out.data({
    from: `v${a.version}`,
    to: `v${b.version}`,
    sameRoot: a.root === b.root,
    schema,
    classes,
    counts,
    ...lists,
  });
  out.line(
    `${a.dataset}@v${a.version} → ${b.dataset}@v${b.version}: ${a.root === b.root ? "the same root" : "different roots"}`,
  );
  out.line(`schema ${schema}, class vocabularies ${classes}, splits ${a.splits.join(", ")} → ${b.splits.join(", ")}`);
  out.line(
    `${plural(counts.added, "shard")} added, ${count(counts.removed)} removed, ${count(counts.changed)} changed`,
  );
  const signs = { removed: "-", changed: "~", added: "+" } as const;
  const rows = Object.entries(signs).flatMap(([change, sign]) =>
    lists[change as Change].map((e) => [sign, e.name, e.rows, bytesText(e.bytes), e.digest]),
  );
  if (rows.length > 0) out.line(`\n${table(["", "shard", "rows", "bytes", "digest"], rows)}`);
  const unlisted = counts.added + counts.removed + counts.changed - rows.length;
  if (unlisted > 0) out.line(`and ${count(unlisted)} more, which are not listed`);
}

async function openSide({ session, timeoutMs, signal }: Context, text: string): Promise<Side> {
  const resolved = await resolve(session, parseRef(text), { timeoutMs, signal });
  const { version, confirmation } = resolved;
  const head: VersionHead = { ...version, asOf: confirmation.index };
  return { resolved, head, manifest: await fetchManifest(session, head, { timeoutMs, signal }) };
}

interface Differing {
  readonly positions: readonly number[];
  readonly shards: number;
}

/** Pages of `side` that the other side does not have too. */
function differingPages(side: Side, other: Side): Differing {
  const shared = new Set<string>(other.manifest.map((entry) => entry.page));
  const positions: number[] = [];
  let shards = 0;
  for (const [position, { page, totals }] of side.manifest.entries()) {
    if (shared.has(page)) continue;
    positions.push(position);
    shards += totals.reduce((sum, total) => sum + total.shards, 0);
  }
  return { positions, shards };
}

async function* fetch(
  { session, timeoutMs, signal }: Context,
  { head, manifest }: Side,
  { positions }: Differing,
): AsyncGenerator<readonly ShardEntry[]> {
  for (const position of positions) {
    const page = manifest[position];
    if (page) yield await fetchPage(session, head, position, page, { timeoutMs, signal });
  }
}
