/**
 * `open()` of a version, confirmed by a majority and proven against its root, beside one bare NATS request between two
 * processes over the same nats-server, in turns.
 */
import { execFile, spawn } from "node:child_process";
import path from "node:path";
import { promisify } from "node:util";
import { connect } from "../src/index.ts";
import { tinyShard } from "../test/support/group.ts";
import { tempDir } from "../test/support/temp-dir.ts";
import { scriptCommand } from "./built.ts";
import { startGroup } from "./commit-group.ts";
import { type Figure, latency } from "./report.ts";

const ROUNDS = 2_000;
/** DESIGN: at most three bare requests. */
const REACH = 1 / 3;

interface Latencies {
  readonly medianMs: number;
  readonly p99Ms: number;
}

export async function benchConfirm(note: (line: string) => void): Promise<Figure[]> {
  await using dir = await tempDir("bench-confirm");
  note("three replicas, three Postgres servers, one nats-server");
  await using local = await startGroup({ dir: path.join(dir.path, "group") });
  {
    await using group = await connect(local.url);
    await group.publish("bench", await tinyShard(dir.path, "bench", 1));
  }
  const { file, args } = scriptCommand("confirm-client.ts");
  const echo = spawn(file, [...args, "echo", local.url], { stdio: ["pipe", "pipe", "inherit"] });
  try {
    await new Promise((resolve) => echo.stdout.once("data", resolve));
    note(`${ROUNDS} times in turns: a bare request, an open()`);
    const { stdout } = await promisify(execFile)(file, [...args, "measure", local.url, "bench@v1", String(ROUNDS)]);
    const { bare, open } = JSON.parse(stdout) as { bare: Latencies; open: Latencies };
    const peer = (value: number) => ({ name: "bare NATS request", value });
    return [
      latency("confirm", "open(), median", "ms", open.medianMs, peer(bare.medianMs), REACH),
      latency("confirm", "open(), p99", "ms", open.p99Ms, peer(bare.p99Ms), null),
    ];
  } finally {
    echo.kill("SIGKILL");
  }
}
