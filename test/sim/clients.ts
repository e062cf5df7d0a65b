/**
 * Owns the simulated clients: real client code (`propose`, `commitDraft`, `resolve`) over the simulated network, one
 * operation after another, each recorded with its call, its return and what it said.
 */
import { commitDraft, putObjects } from "../../src/client/commit.ts";
import type { Draft } from "../../src/client/draft.ts";
import { resolve } from "../../src/client/open.ts";
import { commandIdOf, makeCommand, propose } from "../../src/client/propose.ts";
import { createSession, type Session } from "../../src/client/session.ts";
import { type ErrorCode, isShardpactError, type ShardpactError } from "../../src/model/errors.ts";
import type { CommandBody, CommandKind } from "../../src/model/commands.ts";
import type { RefTarget } from "../../src/model/names.ts";
import type { Checker } from "./checker-port.ts";
import { type Cluster, fork } from "./cluster.ts";
import type { Input, Output } from "./dataset-model.ts";
import type { Operation } from "./linearizability.ts";
import { createManifests } from "./manifests.ts";
import type { Acknowledged } from "./readers.ts";
import { createProcess, type SimProcess } from "./process.ts";
import { below, between, pick, type Random, type Scheduler } from "./scheduler.ts";

export const DATASETS = ["alpha", "beta"];
const TAGS = ["prod", "next"];
const RUNS = ["run-1", "run-2", "run-3"];
const THINK_MS: readonly [number, number] = [0, 60];
const TIMEOUT_MS: readonly [number, number] = [800, 5_000];

/** One operation; `output` and `returnMs` are null while nobody knows what came of it. */
export interface Recorded extends Operation<Input, Output> {
  readonly dataset: string;
  /** Command ids under which it may have taken effect; empty for reads. */
  readonly commandId: string | null;
}

export interface Clients {
  readonly history: readonly Recorded[];
  /** Positions of operations whose caller was told that they were never sent: they must have had no effect. */
  readonly neverSent: ReadonlySet<number>;
  /** No new operations. Resolves when those under way have ended. */
  stop(): void;
  idle(): boolean;
  /** Reads of everything, once, by every client. */
  readAll(): void;
  readonly names: readonly string[];
}

interface Known {
  head: { readonly version: number; readonly index: number; readonly root: string } | null;
  readonly tags: Map<string, number | null>;
}

interface Client {
  readonly process: SimProcess;
  readonly session: Session;
  readonly random: Random;
  readonly known: Map<string, Known>;
  operations: number;
}

/** What may come of a call without a violation: the group, or the way to it, was not there. */
const PASSING = new Set<ErrorCode>(["no_quorum", "timeout", "unavailable", "not_leader"]);

export interface ClientsOptions {
  readonly scheduler: Scheduler;
  readonly random: Random;
  readonly cluster: Cluster;
  readonly count: number;
  readonly acknowledged: Acknowledged;
}

export function startClients({ scheduler, random, cluster, count, acknowledged }: ClientsOptions): Clients {
  const { checker } = cluster;
  const check: Checker["check"] = checker.check;
  const manifests = createManifests();
  const history: Recorded[] = [];
  const clients: Client[] = [];
  const neverSent = new Set<number>();
  let stopped = false;
  let busy = 0;
  for (let i = 0; i < count; i++) {
    const name = `c${i + 1}`;
    const process = createProcess(name, scheduler, fork(random), { offsetMs: 0, rate: 1 });
    const { genesis, groupId, network } = cluster;
    const session = createSession({
      transport: network.connect(process),
      timing: process.timing,
      discovered: { group: genesis.name, groupId, genesis, leader: null, stores: [] },
      actor: name,
      onNotice: (notice) => {
        const { replicas } = notice.details;
        const bad = Array.isArray(replicas) ? replicas.filter((id) => checker.healthy(String(id))) : [];
        check(bad.length === 0, `I10 a client was told: ${notice.message}`);
      },
    });
    const known = new Map(DATASETS.map((dataset): [string, Known] => [dataset, { head: null, tags: new Map() }]));
    clients.push({ process, session, random: fork(random), known, operations: 0 });
  }
  for (const client of clients) think(client);

  function think(client: Client): void {
    client.process.runtime.after(between(client.random, ...THINK_MS), () => {
      if (stopped) return;
      busy += 1;
      void act(client)
        .catch((error: unknown) => scheduler.fail(error as Error))
        .finally(() => {
          busy -= 1;
          think(client);
        });
    });
  }

  async function act(client: Client): Promise<void> {
    const dataset = pick(client.random, DATASETS);
    const known = client.known.get(dataset) as Known;
    const dice = client.random();
    if (known.head === null && dice < 0.5) return read(client, dataset, { kind: "head" });
    if (known.head === null || dice < 0.35) return commit(client, dataset, known);
    if (dice < 0.55) return read(client, dataset, { kind: "head" });
    const version = 1 + below(client.random, known.head.version);
    if (dice < 0.7) return move(client, dataset, known, version);
    if (dice < 0.85) return read(client, dataset, { kind: "tag", tag: pick(client.random, TAGS) });
    const run = pick(client.random, RUNS);
    if (dice < 0.95) return pin(client, dataset, run, version);
    return write(client, dataset, { kind: "unpin", run }, "pin.release", { dataset, run }, (code) =>
      code === "not_found" ? 0 : null,
    );
  }

  const optionsOf = (client: Client): { timeoutMs: number } => ({
    timeoutMs: Math.ceil(between(client.random, ...TIMEOUT_MS)),
  });

  /** Records the call now and the return when it is known. Violations of what a client may be told end the run. */
  async function record(
    client: Client,
    operation: { readonly dataset: string; readonly input: Input; readonly commandId: string | null },
    work: () => Promise<Output>,
    refused: (error: ShardpactError) => Output | null,
  ): Promise<void> {
    const at = history.length;
    const callMs = scheduler.nowMs();
    const process = client.process.name;
    history.push({ ...operation, process, callMs, returnMs: null, output: null });
    let output: Output | null;
    try {
      output = await work();
    } catch (error) {
      if (!isShardpactError(error)) throw error;
      output = refused(error);
      const fair = output !== null || PASSING.has(error.code);
      check(fair, `client ${process} was told ${error.code}: ${error.message} (${operation.input.kind})`);
      if (error.code === "unavailable") neverSent.add(at);
    }
    if (output !== null) history[at] = { ...operation, process, callMs, returnMs: scheduler.nowMs(), output };
  }

  async function commit(client: Client, dataset: string, known: Known): Promise<void> {
    const base = known.head;
    client.operations += 1;
    const draft: Draft = manifests.draft(dataset, base, `${client.process.name}-${client.operations}`, client.random);
    const o = optionsOf(client);
    try {
      await putObjects(client.session, draft.objects, o);
    } catch (error) {
      check(isShardpactError(error) && PASSING.has(error.code), `putting pages: ${String(error)}`);
      return;
    }
    const input: Input = { kind: "commit", expected: base?.version ?? null, root: draft.root };
    await record(
      client,
      { dataset, input, commandId: null },
      async () => {
        const { version, index, root, unchanged } = await commitDraft(client.session, draft, o);
        checkWrite(index);
        known.head = { version, index, root };
        check(!unchanged || base === null || version >= base.version, "an unchanged commit is not the head");
        return { kind: "ok", version, root };
      },
      (error) => {
        if (error.code !== "head_moved") return null;
        const head = error.details["head"] as Known["head"];
        known.head = head;
        return { kind: "refused", version: head?.version ?? 0 };
      },
    );
  }

  async function read(client: Client, dataset: string, target: RefTarget & { kind: "head" | "tag" }): Promise<void> {
    const known = client.known.get(dataset) as Known;
    const input: Input = target.kind === "head" ? { kind: "head" } : { kind: "tag", tag: target.tag };
    // What is asked from now on must not be older than what any client was told (I8).
    const floor = acknowledged.now();
    await record(
      client,
      { dataset, input, commandId: null },
      async () => {
        const { version, confirmation } = await resolve(client.session, { dataset, target }, optionsOf(client));
        const { index, chain } = confirmation;
        check(index >= floor, `I8 a read at ${index}; ${floor} was acknowledged before it was asked`);
        check(checker.ledgerAt(index)?.chain === chain, `I17 a read confirmed another chain at ${index}`);
        acknowledged.told(index);
        if (target.kind === "tag") known.tags.set(target.tag, version.version);
        else known.head = { version: version.version, index: version.index, root: version.root };
        return { kind: "ok", version: version.version, root: version.root };
      },
      (error) => (error.code === "not_found" ? { kind: "ok", version: 0, root: "" } : null),
    );
  }

  async function move(client: Client, dataset: string, known: Known, version: number): Promise<void> {
    const tag = pick(client.random, TAGS);
    const expected = known.tags.get(tag) ?? null;
    const input: Input = { kind: "move", tag, version, expected };
    await write(client, dataset, input, "tag.move", { dataset, tag, version, expected }, (code, details) => {
      if (code !== "tag_moved") return null;
      const now = details["version"] as number | null;
      known.tags.set(tag, now);
      return now ?? 0;
    });
  }

  function pin(client: Client, dataset: string, run: string, version: number): Promise<void> {
    const root = manifests.rootOf(dataset, version, checker.oracle);
    if (root === null) return Promise.resolve();
    const body = { dataset, run, version, root, note: "" };
    return write(client, dataset, { kind: "pin", run, version }, "pin.create", body, (code, details) =>
      code === "pin_conflict" ? (details["version"] as number) : null,
    );
  }

  /** A small command under an id of its own; `refusal` names the version in a refusal, null for any other code. */
  async function write<K extends CommandKind>(
    client: Client,
    dataset: string,
    input: Input,
    kind: K,
    body: CommandBody<K>,
    refusal: (code: ErrorCode, details: Readonly<Record<string, unknown>>) => number | null,
  ): Promise<void> {
    client.operations += 1;
    const id = commandIdOf("sim", client.process.name, client.operations);
    const command = makeCommand(client.session, id, kind, body);
    await record(
      client,
      { dataset, input, commandId: command.id },
      async () => {
        const { index, result } = await propose(client.session, command, optionsOf(client));
        checkWrite(index);
        check(checker.ledgerAt(index)?.commandId === command.id, `I12 ${command.id} is not at ${index}`);
        const version = Number(result["version"]);
        if (input.kind === "move") client.known.get(dataset)?.tags.set(input.tag, version);
        return { kind: "ok", version, root: "" };
      },
      ({ code, details }) => {
        const version = refusal(code, details);
        return version === null ? null : { kind: "refused", version };
      },
    );
  }

  function checkWrite(index: number): void {
    check(index <= checker.chosenCount(), `I5 ${index} was acknowledged and nobody has applied it`);
    acknowledged.told(index);
  }

  return {
    history,
    neverSent,
    names: clients.map(({ process }) => process.name),
    stop() {
      stopped = true;
    },
    idle: () => busy === 0,
    readAll() {
      for (const client of clients) {
        for (const dataset of DATASETS) {
          const targets: (RefTarget & { kind: "head" | "tag" })[] = [
            { kind: "head" },
            ...TAGS.map((tag) => ({ kind: "tag" as const, tag })),
          ];
          for (const target of targets) {
            busy += 1;
            void read(client, dataset, target)
              .catch((error: unknown) => scheduler.fail(error as Error))
              .finally(() => {
                busy -= 1;
              });
          }
        }
      }
    },
  };
}
