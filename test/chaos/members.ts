/**
 * Owns the changes of members during a storm: again and again a new replica joins, learns, and takes the place of a voter,
 * with the command line, as an operator would; a verb that fails is given again.
 */
import { setTimeout as sleep } from "node:timers/promises";
import { isShardpactError } from "../../src/model/errors.ts";
import { startCli } from "../cli/run-cli.ts";
import { between, pick, type Random } from "../sim/scheduler.ts";
import type { Cluster } from "./cluster.ts";
import { machineMs } from "./history.ts";

const PAUSE_MS: readonly [number, number] = [4_000, 12_000];
const VERB_TIMEOUT_S = 20;
const CHANGE_TIMEOUT_MS = 180_000;
const POLL_MS = 50;

export interface Members {
  /** Voters that were replaced. */
  replaced(): number;
  /** No more changes. Resolves when the one under way is complete. @throws what it failed with */
  stop(): Promise<void>;
}

export interface MembersOptions {
  readonly cluster: Cluster;
  readonly random: Random;
  /** Parts that a fault has now. */
  readonly busy: () => ReadonlySet<string>;
  readonly say: (line: string) => void;
}

export function startMembers({ cluster, random, busy, say }: MembersOptions): Members {
  const { local } = cluster;
  let replaced = 0;
  let stopping = false;

  /** Gives the verb until the group is where it leads to. */
  async function until(done: (voters: readonly string[], learners: readonly string[]) => boolean, ...verb: string[]) {
    const endMs = machineMs() + CHANGE_TIMEOUT_MS;
    let said = "";
    for (;;) {
      const { configuration } = (await cluster.leading()) ?? {};
      const ids = (members: readonly { readonly id: string }[] = []): string[] => members.map(({ id }) => id);
      const settled = configuration?.votersOutgoing.length === 0 && configuration.applied;
      if (settled && done(ids(configuration.voters), ids(configuration.learners))) return;
      if (machineMs() > endMs) throw new Error(`'member ${verb.join(" ")}' did not come about: ${said}`);
      const where = ["--dir", cluster.dir, "--url", local.natsServers.map(({ url }) => url).join(",")];
      const argv = ["member", ...verb, ...where, "--timeout", String(VERB_TIMEOUT_S)];
      const { code, stderr } = await startCli(argv, { cwd: cluster.dir });
      if (code !== 0) said = stderr.trim();
    }
  }

  async function replaceOne(number: number): Promise<void> {
    const id = `r${number}`;
    const old = pick(random, cluster.replicas());
    say(`members: ${id} takes the place of ${old.id}`);
    await until((voters, learners) => [...voters, ...learners].includes(id), "add", id);
    // One that a fault ends while it starts is started again by that fault.
    await local.join(id).catch((error: unknown) => {
      if (!isShardpactError(error, "setup_failed") || !local.replicas.some((replica) => replica.id === id)) throw error;
    });
    await until((voters) => voters.includes(id) && !voters.includes(old.id), "replace", old.id, id);
    await cluster.retire(old.id, busy);
    replaced += 1;
    say(`members: ${id} votes, ${old.id} is out`);
  }

  async function run(): Promise<void> {
    for (let number = local.replicas.length + 1; ; number++) {
      const resumeMs = machineMs() + between(random, ...PAUSE_MS);
      while (!stopping && machineMs() < resumeMs) await sleep(POLL_MS);
      if (stopping) return;
      await replaceOne(number);
    }
  }

  const running = run();
  running.catch(() => undefined); // `stop` tells
  return {
    replaced: () => replaced,
    async stop() {
      stopping = true;
      await running;
    },
  };
}
