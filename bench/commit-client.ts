/**
 * Owns the client process of the commit bench: N concurrent clients, each committing version after version of its own
 * dataset, each commit acknowledged after the leader applied it with its ledger row. Prints one JSON line a count.
 * Usage: tsx bench/commit-client.ts URL CLIENTS SECONDS
 */
import { randomUUID } from "node:crypto";
import { commandIdOf, makeCommand, propose } from "../src/client/propose.ts";
import type { Session } from "../src/client/session.ts";
import { openConnection } from "../src/connect.ts";
import { encodeClasses } from "../src/merkle/classes.ts";
import { hashBytes } from "../src/merkle/hash.ts";
import { manifestLeaf } from "../src/merkle/manifest.ts";
import { encodePage, type PageEntry, pageTotals } from "../src/merkle/page.ts";
import { computeRoot, objectDigest } from "../src/merkle/root.ts";
import { treeHash } from "../src/merkle/tree.ts";
import { type Digest, formatDigest, parseDigest, utf8 } from "../src/model/bytes.ts";
import type { CommandBody, ObjectKind } from "../src/model/commands.ts";
import { median, quantile } from "./report.ts";

const WARM_UP_MS = 1000;

async function put(session: Session, kind: ObjectKind, bytes: Uint8Array): Promise<Digest> {
  const digest = objectDigest(kind, bytes);
  await propose(session, makeCommand(session, randomUUID(), "page.put", { kind, digest }, bytes));
  return digest;
}

interface Candidate {
  readonly page: Digest;
  readonly body: Omit<CommandBody<"version.commit">, "dataset" | "expectedHead">;
}

/** A version of one shard, ready to be committed again and again. */
async function candidate(session: Session, dataset: string, n: number): Promise<Candidate> {
  const digest = formatDigest(hashBytes(utf8(`${dataset} ${n}`)));
  const entries: PageEntry[] = [
    { name: "part-0.arrow", split: 0, rows: 1000, bytes: 1_000_000, digest, segmentIndex: digest },
  ];
  const totals = pageTotals(entries);
  const page = await put(session, "page", encodePage(entries));
  const schema = await put(session, "schema", utf8('{"fields":[]}'));
  const classes = await put(session, "classes", encodeClasses({}));
  const fields = { schema, classes, splits: ["all"], splitRule: { kind: "none" } as const };
  const root = computeRoot({
    ...fields,
    pageCount: 1,
    treeHash: formatDigest(treeHash([manifestLeaf({ page, totals })])),
    totals,
  });
  return { page, body: { ...fields, kept: 0, added: 1, root, message: "" } };
}

/** Commits the two candidates in turns until `untilMs`; pushes each latency in ms. */
async function commitLoop(session: Session, dataset: string, until: () => boolean, latencies: number[]): Promise<void> {
  const candidates = [await candidate(session, dataset, 0), await candidate(session, dataset, 1)];
  let expectedHead: CommandBody<"version.commit">["expectedHead"] = null;
  for (let n = 0; !until(); n++) {
    const { page, body } = candidates[n % 2]!;
    const id = commandIdOf(dataset, expectedHead, body.root, session.actor);
    const command = makeCommand(session, id, "version.commit", { ...body, dataset, expectedHead }, parseDigest(page));
    const startedMs = performance.now();
    const { result, index } = await propose(session, command);
    latencies.push(performance.now() - startedMs);
    expectedHead = { version: Number(result["version"]), index };
  }
}

const [url = "", clientsText = "1", secondsText = "5"] = process.argv.slice(2);
await using connection = await openConnection({ url });
const clients = Number(clientsText);
const latencies: number[] = [];
let stopAtMs = Number.POSITIVE_INFINITY;
const run = randomUUID().slice(0, 8);
const loops = Array.from({ length: clients }, (_, i) =>
  commitLoop(connection.session, `bench-${run}-${i}`, () => performance.now() >= stopAtMs, latencies),
);
await new Promise((resolve) => setTimeout(resolve, WARM_UP_MS));
const before = latencies.length;
const startedMs = performance.now();
stopAtMs = startedMs + Number(secondsText) * 1000;
await Promise.all(loops);
const measured = latencies.slice(before);
const perSecond = measured.length / ((performance.now() - startedMs) / 1000);
const { user, system } = process.cpuUsage();
const figures = { clients, perSecond, medianMs: median(measured), p99Ms: quantile(measured, 0.99) };
console.log(JSON.stringify({ ...figures, total: latencies.length, cpuMs: (user + system) / 1000 }));
