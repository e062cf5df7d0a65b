/**
 * Owns the client process of the failover bench: a commit every 20 ms, whatever became of those before. Prints one JSON line
 * per acknowledged commit, with the times of its call and its acknowledgement, until standard input ends.
 * Usage: tsx bench/failover-client.ts URL
 */
import { randomUUID } from "node:crypto";
import { setTimeout as sleep } from "node:timers/promises";
import { createManifests } from "../test/sim/manifests.ts";
import type { Draft } from "../src/client/draft.ts";
import { built } from "./built.ts";

const { commitDraft, putObjects } = await built<typeof import("../src/client/commit.ts")>("client/commit.ts");
const { openConnection } = await built<typeof import("../src/connect.ts")>("connect.ts");

const EVERY_MS = 20;
/** Each has one commit under way at most: more than ever wait at once. */
const DATASETS = 128;
const TIMEOUT_MS = 10_000;

const [url = ""] = process.argv.slice(2);
await using connection = await openConnection({ url });
const { session } = connection;
const run = randomUUID().slice(0, 8);
const manifests = createManifests();

interface Line {
  readonly drafts: readonly Draft[];
  head: Draft["expectedHead"];
  commits: number;
  busy: boolean;
}

/** Two versions of each dataset are put once and committed in turns. */
async function startLine(i: number): Promise<Line> {
  const name = `failover-${run}-${i}`;
  const drafts = [0, 1].map((n) => manifests.draft(name, null, `${name}-${n}`, () => 0));
  for (const { objects } of drafts) await putObjects(session, objects, { timeoutMs: TIMEOUT_MS });
  return { drafts, head: null, commits: 0, busy: false };
}
const lines = await Promise.all(Array.from({ length: DATASETS }, (_, i) => startLine(i)));

async function commit(line: Line): Promise<void> {
  line.busy = true;
  const callMs = Date.now();
  try {
    const draft = line.drafts[line.commits % 2] as Draft;
    const { version, index } = await commitDraft(
      session,
      { ...draft, expectedHead: line.head },
      { timeoutMs: TIMEOUT_MS },
    );
    console.log(JSON.stringify({ callMs, ackMs: Date.now() }));
    line.head = { version, index };
    line.commits += 1;
  } finally {
    line.busy = false;
  }
}

let ended = false;
process.stdin.on("end", () => (ended = true)).resume();
while (!ended) {
  const line = lines.find(({ busy }) => !busy);
  if (line) void commit(line).catch((error: unknown) => console.error(error));
  await sleep(EVERY_MS);
}
process.exit(0);
