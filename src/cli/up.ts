/**
 * Owns `shardpact up`: a whole group on this machine, until Ctrl-C.
 */
import { existsSync } from "node:fs";
import { readFile, writeFile } from "node:fs/promises";
import { join, relative, resolve } from "node:path";
import { pathToFileURL } from "node:url";
import { type Command, InvalidArgumentError, Option } from "commander";
import type { Genesis } from "../model/api.ts";
import { toShardpactError } from "../model/errors.ts";
import { LIMITS } from "../model/limits.ts";
import { memberIds } from "./embedded/group-files.ts";
import { type LocalGroup, startLocalGroup } from "./embedded/local-group.ts";

interface UpOptions {
  readonly dir: string;
  readonly port: number;
  readonly replicas: number;
  readonly engine: Genesis["engine"];
}

/** What `connect()` and the other verbs read when they are given no address. */
const CLIENT_CONFIG = "shardpact.json";
const WATCH_MS = 1_000;

export function register(command: Command): void {
  command
    .option("--dir <dir>", "data, keys and logs; kept for the next start", ".shardpact")
    .option("--port <port>", "port of the nats-server", portNumber, 4222)
    .option("--replicas <count>", "how many replicas; fixed by the first start", replicaCount, 3)
    .addOption(new Option("--engine <engine>", "fixed by the first start").choices(["raft", "paxos"]).default("raft"))
    .addHelpText("after", "\nExamples:\n  $ shardpact up\n  $ shardpact up --port 4333 --dir /tmp/group")
    .action(up);
}

async function up({ dir, port, ...options }: UpOptions): Promise<void> {
  const stopped = interruption();
  const group = await startLocalGroup({ dir: resolve(dir), port, ...options, onLine: (line) => console.log(line) });
  try {
    const leader = await group.waitForLeader();
    console.log(`group '${group.group}' (${group.groupId.slice(0, 19)}…) is up, ${leader} leads`);
    await describe(group);
    using _watch = tellWhoEnds(group);
    using _joins = startWhoJoins(group, resolve(dir));
    await stopped;
    console.log("stopping…");
  } finally {
    await group.close();
  }
}

async function describe(group: LocalGroup): Promise<void> {
  const config = { url: group.url, group: group.group, stores: [pathToFileURL(group.storeDir).href] };
  const file = join(process.cwd(), CLIENT_CONFIG);
  const text = `${JSON.stringify(config, null, 2)}\n`;
  if (!existsSync(file)) {
    await writeFile(file, text);
    console.log(`wrote ${CLIENT_CONFIG}: scripts and commands in this folder find the group by themselves`);
  } else if ((await readFile(file, "utf8")) !== text) {
    console.log(`! ${CLIENT_CONFIG} was here and says something else: give scripts and commands ${group.url} (--url)`);
  }
  console.log(`\nconnect:  await connect("${group.url}")`);
  console.log("publish:  npx shardpact publish <dataset> <folder>");
  for (const { id, postgresUrl } of group.replicas) console.log(`SQL, ${id}:  psql "${postgresUrl}"`);
  console.log(`shards:   ${relative(process.cwd(), group.storeDir) || group.storeDir}`);
  console.log("\nCtrl-C stops everything; the data stays.");
}

/** A line for every replica that ends by itself. */
function tellWhoEnds({ replicas }: LocalGroup): Disposable {
  const told = new Set<string>();
  const timer = setInterval(() => {
    for (const { id, logFile } of replicas.filter((replica) => replica.exited() && !told.has(replica.id))) {
      told.add(id);
      console.log(
        `! replica ${id} has ended, its log says why: ${logFile}. The next \`shardpact up\` starts it again.`,
      );
    }
  }, WATCH_MS);
  return { [Symbol.dispose]: () => clearInterval(timer) };
}

/** A replica that `shardpact member add` made a key for is started: the group has let it learn. */
function startWhoJoins(group: LocalGroup, dir: string): Disposable {
  let busy = false;
  const look = async (): Promise<void> => {
    const known = new Set(group.replicas.map((replica) => replica.id));
    for (const id of (await memberIds(dir)).filter((each) => !known.has(each))) {
      const { pid, logFile } = await group.join(id);
      console.log(`replica ${id} joins as process ${pid}, log in ${logFile}`);
    }
  };
  const timer = setInterval(() => {
    if (busy) return;
    busy = true;
    void look()
      .catch((error: unknown) => console.log(`! a replica could not be started: ${toShardpactError(error).message}`))
      .finally(() => (busy = false));
  }, WATCH_MS);
  return { [Symbol.dispose]: () => clearInterval(timer) };
}

/** Resolves at the first Ctrl-C or SIGTERM, also one that comes while the group still starts. A second Ctrl-C ends at once. */
function interruption(): Promise<void> {
  return new Promise((done) => {
    const stop = () => done();
    process.once("SIGINT", stop);
    process.once("SIGTERM", stop);
  });
}

function portNumber(text: string): number {
  const port = Number(text);
  if (Number.isInteger(port) && port > 0 && port < 65_536) return port;
  throw new InvalidArgumentError("a port is a number from 1 to 65535.");
}

function replicaCount(text: string): number {
  const count = Number(text);
  if (Number.isInteger(count) && count >= 1 && count <= LIMITS.votersMax) return count;
  throw new InvalidArgumentError(`a number from 1 to ${LIMITS.votersMax}.`);
}
