/**
 * Owns `shardpact verify`: every leaf of every shard of a version, in each store, against what the group agreed on.
 *
 * It reads and tells, and changes nothing unless --quarantine is given. A loader that meets a bad copy quarantines it.
 */
import { stat } from "node:fs/promises";
import { fileURLToPath } from "node:url";
import type { Command } from "commander";
import { resolve, waitForStragglers, type Resolved } from "../client/open.ts";
import { parseRef } from "../model/names.ts";
import type { ShardStore } from "../shards/port.ts";
import { isCache } from "../shards/cache/cached-store.ts";
import { storeUrl } from "../shards/stores/open-store.ts";
import { verifyShard, type Finding } from "../shards/verify.ts";
import { ShardpactError } from "../model/errors.ts";
import { inGroup, withGroupOptions, type Context, type GroupOptions } from "./context.ts";
import { bytesText, count, EXIT, plural } from "./output.ts";
import { createProgress } from "./progress.ts";
import { entriesOf } from "./show.ts";

type Options = GroupOptions & { readonly store?: string[]; readonly quarantine?: boolean };

/** Lines about one store, and findings of all in the JSON; the counts are of all. */
const LINES_MAX = 100;
const FINDINGS_MAX = 10_000;

const HELP = `
Exits with 1 when something is missing or wrong; every finding names shard, segment and leaf.
A bad copy that was set aside comes back with \`shardpact publish\` of the same files.

Examples:
  $ shardpact verify mnist@v1
  $ shardpact verify mnist@v1 --store ./shards --json
  $ shardpact verify mnist@v1 --quarantine`;

export function register(command: Command): void {
  withGroupOptions(command.argument("<ref>", "the version: name@v3, name@tag"))
    .option("--store <dir...>", "stores to check; default: the settings' and the replicas' own")
    .option("--quarantine", "move bad copies aside, into the store's folder quarantine/")
    .addHelpText("after", HELP)
    .action((ref: string, o: Options) => inGroup(o, (context) => verify(context, ref, o)));
}

async function verify(context: Context, text: string, o: Options): Promise<void> {
  const { session, stores, out, timeoutMs, signal } = context;
  const resolved = await resolve(session, parseRef(text), { timeoutMs, signal });
  await waitForStragglers(session, resolved);
  for (const named of o.store ?? []) await requireFolder(named);
  const all = (await stores.readable(o.store ?? [])).filter((store) => !isCache(store));
  const chosen = o.store === undefined ? all : all.slice(0, new Set(o.store).size);
  if (chosen.length === 0) {
    throw new ShardpactError("config_invalid", "there is no shard store to check", { hint: "Name one: --store DIR." });
  }
  const found: Found = { count: 0, bad: 0, first: [] };
  for (const store of chosen) await verifyStore(context, resolved, store, o.quarantine === true, found);
  const { dataset, version, root } = resolved.version;
  const stated = { findings: found.first, findingsCount: found.count };
  out.data({ dataset, version, root, stores: chosen.map((s) => s.url), ...stated });
  if (found.count === 0) return;
  process.exitCode = EXIT.found;
  const aside = found.bad > 0 && o.quarantine !== true ? "set the bad copies aside with --quarantine, then " : "";
  out.line(`  next: ${aside}publish the same files again, or copy the store's objects from a good one`);
}

/** A store that is only looked at is never made: a mistyped path must not become an empty store. */
async function requireFolder(named: string): Promise<void> {
  const url = storeUrl(named);
  if (!url.startsWith("file:")) return;
  const path = fileURLToPath(url);
  if ((await stat(path).catch(() => null))?.isDirectory()) return;
  throw new ShardpactError("not_found", `there is no shard store at ${path}`, {
    hint: "Name the folder that holds b3/; without --store, the settings' and the replicas' own are checked.",
  });
}

/** What all stores came to. */
interface Found {
  count: number;
  /** Of them, what is there and wrong. */
  bad: number;
  readonly first: Finding[];
}

async function verifyStore(
  context: Context,
  resolved: Resolved,
  store: ShardStore,
  setAside: boolean,
  found: Found,
): Promise<void> {
  const { out, signal } = context;
  const totalBytes = resolved.version.totals.reduce((sum, t) => sum + t.bytes, 0);
  const progress = createProgress(out.json);
  let findings = 0;
  let shards = 0;
  let doneBytes = 0;
  const asked = setAside ? { setAside: describe } : {};
  const onBytes = (bytes: number) => progress.update("verify", (doneBytes += bytes), totalBytes);
  try {
    for await (const entry of entriesOf(context, resolved)) {
      shards++;
      for await (const finding of verifyShard({ entry, store, signal, onBytes, ...asked })) {
        findings += 1;
        found.count += 1;
        if (finding.kind !== "missing") found.bad += 1;
        if (found.first.length < FINDINGS_MAX) found.first.push(finding);
        if (findings <= LINES_MAX) {
          progress.stop();
          out.line(`✗ ${describe(finding)}`);
        }
      }
    }
  } finally {
    progress.stop();
  }
  if (findings > LINES_MAX)
    out.line(`✗ and ${count(findings - LINES_MAX)} more: --json tells the first ${count(FINDINGS_MAX)}`);
  const result = findings === 0 ? "every leaf as agreed" : plural(findings, "finding");
  out.line(
    `${findings === 0 ? "✓" : "✗"} ${store.url}: ${plural(shards, "shard")}, ${bytesText(doneBytes)}, ${result}`,
  );
}

function describe(finding: Finding): string {
  const { shard } = finding;
  switch (finding.kind) {
    case "missing":
      return finding.object === "shard"
        ? `shard ${shard} is missing`
        : `the segment index of shard ${shard} is missing`;
    case "index":
      return `segment index of shard ${shard}: expected ${cut(finding.expected)} got ${cut(finding.got)}`;
    case "size":
      return `shard ${shard} has ${count(finding.got)} bytes, not ${count(finding.expected)}`;
    case "leaf": {
      const { segment, segmentKind, leaf, offset, bytes, expected, got } = finding;
      const range = `bytes ${count(offset)}–${count(offset + bytes)}`;
      const found = got === null ? "and the file ends before it" : `got ${cut(got)}`;
      return `shard ${shard} segment ${segment} (${segmentKind}) leaf ${leaf} (${range}): expected ${cut(expected)} ${found}`;
    }
    case "file":
      return `shard ${shard}: the whole file hashes to ${cut(finding.got)}, expected ${cut(finding.expected)}`;
  }
}

function cut(digest: string): string {
  return `${digest.slice(3, 11)}…`;
}
