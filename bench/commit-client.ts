/**
 * Owns the client process of the commit bench: N concurrent clients, each committing version after version of its own
 * dataset, each commit acknowledged after the leader applied it with its ledger row. Like etcd's driver, one process
 * runs all counts. Prints one JSON line when a measurement begins and one with its figures.
 * Usage: tsx bench/commit-client.ts URL CLIENTS,… SECONDS
 */
import { randomUUID } from "node:crypto";
import type { Session } from "../src/client/session.ts";
import type { PageEntry } from "../src/merkle/page.ts";
import type { Digest } from "../src/model/bytes.ts";
import type { CommandBody, ObjectKind } from "../src/model/commands.ts";
import { built } from "./built.ts";
import { WARM_UP } from "./etcd.ts";
import { median, quantile } from "./report.ts";

const { commandIdOf, makeCommand, propose } =
  await built<typeof import("../src/client/propose.ts")>("client/propose.ts");
const { openConnection } = await built<typeof import("../src/connect.ts")>("connect.ts");
const { encodeClasses } = await built<typeof import("../src/merkle/classes.ts")>("merkle/classes.ts");
const { hashBytes } = await built<typeof import("../src/merkle/hash.ts")>("merkle/hash.ts");
const { manifestLeaf } = await built<typeof import("../src/merkle/manifest.ts")>("merkle/manifest.ts");
const { encodePage, pageTotals } = await built<typeof import("../src/merkle/page.ts")>("merkle/page.ts");
const { computeRoot, objectDigest } = await built<typeof import("../src/merkle/root.ts")>("merkle/root.ts");
const { treeHash } = await built<typeof import("../src/merkle/tree.ts")>("merkle/tree.ts");
const { formatDigest, parseDigest, utf8 } = await built<typeof import("../src/model/bytes.ts")>("model/bytes.ts");

/** Before each count; and once before the first, with many clients: what the replicas run must have been compiled. */
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

async function measure(
  session: Session,
  clients: number,
  seconds: number,
  tell: (figures: object) => void,
): Promise<void> {
  const latencies: number[] = [];
  let stopAtMs = Number.POSITIVE_INFINITY;
  const run = randomUUID().slice(0, 8);
  const loops = Array.from({ length: clients }, (_, i) =>
    commitLoop(session, `bench-${run}-${i}`, () => performance.now() >= stopAtMs, latencies),
  );
  await new Promise((resolve) => setTimeout(resolve, WARM_UP_MS));
  tell({ measuring: clients });
  const before = latencies.length;
  const cpuBefore = process.cpuUsage();
  const startedMs = performance.now();
  stopAtMs = startedMs + seconds * 1000;
  await Promise.all(loops);
  const measured = latencies.slice(before);
  const perSecond = measured.length / ((performance.now() - startedMs) / 1000);
  const { user, system } = process.cpuUsage(cpuBefore);
  const figures = { clients, perSecond, medianMs: median(measured), p99Ms: quantile(measured, 0.99) };
  tell({ ...figures, commits: measured.length, cpuMs: (user + system) / 1000 });
}

const [url = "", counts = "1", secondsText = "5"] = process.argv.slice(2);
await using connection = await openConnection({ url });
await measure(connection.session, WARM_UP.clients, WARM_UP.seconds, () => {});
for (const clients of counts.split(",")) {
  await measure(connection.session, Number(clients), Number(secondsText), (figures) =>
    console.log(JSON.stringify(figures)),
  );
}
