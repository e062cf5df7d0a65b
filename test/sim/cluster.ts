/**
 * Owns the simulated group: real replicas (shell, engine, stores, API) over simulated processes, databases and network.
 */
import { SUBJECTS } from "../../src/model/api.ts";
import type { Genesis, MemberInfo } from "../../src/model/group.ts";
import { createSeed, publicKeyHex } from "../../src/model/keys.ts";
import { createEnvelopeCodec } from "../../src/replica/envelope.ts";
import {
  genesisPayload,
  groupIdOf,
  parseReplicaConfig,
  type Replica,
  type ReplicaConfig,
  type ReplicaEvent,
  startReplica,
} from "../../src/replica/index.ts";
import { createMemoryFiles } from "../../src/storage/memory/files.ts";
import type { Files } from "../../src/storage/port.ts";
import { snapshotFolder } from "../../src/storage/snapshot/folder.ts";
import type { Transport } from "../../src/transport/port.ts";
import { createChecker } from "./checker.ts";
import type { Checker } from "./checker-port.ts";
import { createDatabase, type Database } from "./database.ts";
import type { SimEngine } from "./engines.ts";
import { createNetwork, type Network } from "./network.ts";
import { createProcess, type SimClock, type SimProcess } from "./process.ts";
import { createRandom, pick, type Random, type Scheduler } from "./scheduler.ts";

const PEER_SUBJECTS = SUBJECTS.peer("sim", "", "").slice(0, -1);
const RESTART_AFTER_FAILURE_MS = 200;

export interface Member {
  readonly id: string;
  readonly database: Database;
  readonly clock: SimClock;
  readonly config: ReplicaConfig;
  /** Of its machine: snapshots on their way. */
  readonly files: Files;
  process: SimProcess | null;
  transport: Transport | null;
  replica: Replica | null;
}

export interface Cluster {
  readonly genesis: Genesis;
  readonly groupId: string;
  /** Everybody who ever belonged to it or wanted to, also who has left. */
  readonly ids: readonly string[];
  readonly members: ReadonlyMap<string, Member>;
  readonly checker: Checker;
  readonly network: Network;
  /** A new replica with an empty database; it is not started, and nobody knows it. */
  join(): MemberInfo;
  seedOf(id: string): string;
  /** Starts a process; one that runs already is left to find out (fencing). */
  start(id: string): void;
  kill(id: string): void;
  /** A clean stop: hands the lead over, then ends. */
  stop(id: string): void;
  leader(): Member | null;
  /** Tells once when a snapshot for `id` comes to this step. */
  whenSnapshot(id: string, step: SnapshotStep, listener: () => void): void;
  /** Processes and databases that have died so far; those that were stopped cleanly do not count. */
  crashes(): number;
}

type SnapshotStep = Extract<ReplicaEvent, { kind: "snapshot" }>["step"];

export interface ClusterOptions<M> {
  readonly scheduler: Scheduler;
  readonly random: Random;
  readonly replicaCount: number;
  readonly engine: SimEngine<M>;
}

/** Timings that a group is drawn from: the defaults, and a coarser clock with the same timeouts. */
const TIMINGS = [
  {},
  { tickMs: 40, heartbeatTicks: 2, electionTicksMin: 10, electionTicksMax: 20 },
  { tickMs: 50, heartbeatTicks: 1, electionTicksMin: 4, electionTicksMax: 12 },
];

/** What stays in the logs: everything; or so little that whoever is away for a second needs a snapshot. */
const LOGS = [
  {},
  { keepEntries: 100, compactEntries: 20 },
  { keepEntries: 10, compactEntries: 5 },
  { keepEntries: 0, compactEntries: 1 },
];

/** Making keys costs more than all else in a start; they are no secret and influence nothing. */
const seeds = Array.from({ length: 12 }, createSeed);

export function createCluster<M>({ scheduler, random, replicaCount, engine }: ClusterOptions<M>): Cluster {
  const ids = Array.from({ length: replicaCount }, (_, i) => `r${i + 1}`);
  const voters = ids.map((id, i) => ({ id, publicKey: publicKeyHex(seeds[i] ?? "") }));
  const genesis: Genesis = {
    ...{ format: "shardpact-group/1", name: "sim", nonce: "0", engine: engine.kind.name, catalogLevel: 1 },
    voters,
  };
  const groupId = groupIdOf(genesisPayload(genesis));
  const checker = createChecker({
    first: { voters: [...ids], votersOutgoing: [], learners: [] },
    engine,
    fail: scheduler.fail,
  });
  const members = new Map<string, Member>();
  const envelopes = createEnvelopeCodec(groupId);
  const network = createNetwork(scheduler, fork(random), (from, subject, data) => {
    const member = members.get(from);
    if (!member || !subject.startsWith(PEER_SUBJECTS)) return;
    const { header, body } = envelopes.decode(data);
    if (header.kind === "engine") checker.leaves(from, header.to, member.database.disk, body);
  });

  const timing = pick(random, TIMINGS);
  const log = pick(random, LOGS);
  const seedOf = (id: string): string => seeds[ids.indexOf(id)] ?? "";

  function build(id: string): void {
    const identity = { groupId, replica: id, engine: engine.kind.name };
    const config = parseReplicaConfig({
      ...{ replica: id, seed: seedOf(id), genesis, nats: ["-"], postgres: "-", stores: [], timing, log },
    });
    const database = createDatabase({ identity, scheduler, random: fork(random), checker });
    const clock = { offsetMs: 0, rate: 1 + (random() - 0.5) / 500 };
    const files = createMemoryFiles();
    members.set(id, { id, database, clock, config, files, process: null, transport: null, replica: null });
  }

  for (const id of ids) build(id);
  const snapshotListeners = new Map<string, () => void>();
  let kills = 0;
  const memberOf = (id: string): Member => members.get(id) as Member;

  function start(id: string): void {
    const member = memberOf(id);
    const process = createProcess(id, scheduler, fork(random), member.clock);
    const transport = network.connect(process);
    const stores = member.database.open(process);
    let replica: Replica | null = null;
    const onEvent = (event: ReplicaEvent): void => {
      if (event.kind === "state" && event.state === "halted") checker.halted(id, event.reason ?? "");
      if (event.kind === "snapshot") {
        const key = `${id} ${event.step}`;
        const listener = snapshotListeners.get(key);
        snapshotListeners.delete(key);
        listener?.();
      }
      if (event.kind === "role") checker.role(id, event.role, event.term, replica?.status().commit ?? 0);
    };
    const end = (): void => {
      process.kill();
      void transport.close();
      if (member.process !== process) return;
      member.process = null;
      member.replica = null;
      scheduler.after(RESTART_AFTER_FAILURE_MS, () => {
        if (member.process === null) start(id);
      });
    };
    member.process = process;
    member.transport = transport;
    member.replica = null;
    const { config } = member;
    const snapshots = {
      folder: snapshotFolder(`/${id}`, member.files),
      connect: async () => network.connect(process),
    };
    startReplica({ config, transport, stores, engine: engine.kind, runtime: process.runtime, snapshots, onEvent }).then(
      (started) => {
        replica = started;
        if (member.process === process) member.replica = started;
        void started.ended.then(end);
      },
      end,
    );
  }

  function kill(id: string): void {
    const member = memberOf(id);
    const { process } = member;
    member.process = null;
    member.replica = null;
    if (!process) return;
    kills += 1;
    process.kill();
    void member.transport?.close();
  }

  return {
    genesis,
    groupId,
    ids,
    members,
    checker,
    network,
    join() {
      const id = `r${ids.length + 1}`;
      ids.push(id);
      build(id);
      return { id, publicKey: publicKeyHex(seedOf(id)) };
    },
    seedOf,
    start,
    kill,
    stop(id) {
      void memberOf(id).replica?.close();
    },
    whenSnapshot: (id, step, listener) => void snapshotListeners.set(`${id} ${step}`, listener),
    crashes: () => kills + [...members.values()].reduce((sum, { database }) => sum + database.crashes(), 0),
    leader: () => [...members.values()].find((member) => member.replica?.status().role === "leader") ?? null,
  };
}

/** A stream of its own: what one part draws does not move what another part sees. */
export function fork(random: Random): Random {
  return createRandom(Math.floor(random() * 2 ** 32));
}
