/**
 * Owns a whole group in one process for tests: three replicas over any transport and any stores, and a client that
 * follows the leader.
 */
import { randomBytes } from "node:crypto";
import { paxosEngine } from "../../src/consensus/paxos/index.ts";
import { raftEngine } from "../../src/consensus/raft/index.ts";
import {
  type AgreedPart,
  type CatalogQuery,
  type ConfirmRequest,
  type Genesis,
  type MemberInfo,
  type ProposeReply,
  SUBJECTS,
  agreedPart,
  confirmAnswer,
  decodeApi,
  encodeApi,
  proposeReply,
} from "../../src/model/api.ts";
import { utf8 } from "../../src/model/bytes.ts";
import { encodeCommand, parseCommand } from "../../src/model/commands.ts";
import { createSeed, publicKeyHex, verify } from "../../src/model/keys.ts";
import { hashAs } from "../../src/merkle/hash.ts";
import { objectDigest } from "../../src/merkle/root.ts";
import {
  type Replica,
  type ReplicaConfig,
  type ReplicaEvent,
  genesisPayload,
  groupIdOf,
  parseReplicaConfig,
  realRuntime,
  startReplica,
} from "../../src/replica/index.ts";
import { createMemoryFiles } from "../../src/storage/memory/files.ts";
import type { Files, ReplicaStores, StoreIdentity } from "../../src/storage/port.ts";
import { snapshotFolder } from "../../src/storage/snapshot/folder.ts";
import type { Transport } from "../../src/transport/port.ts";
import { waitFor } from "../support/wait-for.ts";

export interface ClusterOptions {
  connect(name: string): Promise<Transport>;
  openStores(identity: StoreIdentity): Promise<ReplicaStores>;
  readonly timing?: Partial<ReplicaConfig["timing"]>;
  readonly log?: Partial<ReplicaConfig["log"]>;
  /** Default: what `group-paxos.test.ts` asks for, else Raft. */
  readonly engine?: Genesis["engine"];
}

export interface Cluster {
  readonly genesis: Genesis;
  /** The first voters'. */
  readonly ids: readonly string[];
  readonly groupId: string;
  readonly client: Transport;
  readonly events: Map<string, ReplicaEvent[]>;
  start(id: string): Promise<Replica>;
  /** Makes the key and configuration of a replica that the genesis does not name; it is not started. */
  make(id: string): MemberInfo;
  /** The replica's seed: an operator signs with it. */
  seedOf(id: string): string;
  /** Ends the replica as a crash would: its stores and its transport go away under it. */
  kill(id: string): Promise<void>;
  replica(id: string): Replica;
  running(): readonly Replica[];
  /** Waits for a leader that has committed in its term. */
  leader(): Promise<string>;
  /** Follows the leader until the command is applied. */
  propose(encoded: Uint8Array): Promise<ProposeReply>;
  /** Waits until all running replicas have applied the same index; resolves with their chains. */
  agreed(): Promise<readonly string[]>;
  /** Asks the leader and waits for `wanted` answers (all running replicas'). */
  confirm(query: CatalogQuery, wanted?: number): Promise<readonly { replica: string; agreed: AgreedPart }[]>;
  close(): Promise<void>;
}

/** Bytes of a command that always succeeds: it puts a small schema object. */
export function putCommand(text: string, id = randomBytes(16).toString("hex")): Uint8Array {
  const blob = utf8(JSON.stringify({ text }));
  const body = { kind: "schema" as const, digest: objectDigest("schema", blob) };
  return encodeCommand(parseCommand({ id, actor: "test", kind: "page.put", body, blob }));
}

interface Member {
  readonly config: ReplicaConfig;
  readonly files: Files;
  running: { replica: Replica; stores: ReplicaStores; transport: Transport } | null;
}

export async function openCluster(options: ClusterOptions): Promise<Cluster> {
  const ids = ["r1", "r2", "r3"];
  const seeds = new Map(ids.map((id) => [id, createSeed()]));
  const genesis: Genesis = {
    format: "shardpact-group/1",
    name: `test-${randomBytes(4).toString("hex")}`,
    nonce: randomBytes(8).toString("hex"),
    engine: options.engine ?? (process.env["GROUP_ENGINE"] === "paxos" ? "paxos" : "raft"),
    catalogLevel: 1,
    voters: ids.map((id) => ({ id, publicKey: publicKeyHex(seeds.get(id) ?? "") })),
  };
  const groupId = groupIdOf(genesisPayload(genesis));
  const events = new Map<string, ReplicaEvent[]>(ids.map((id) => [id, []]));
  const client = await options.connect("client");
  const members = new Map<string, Member>();
  function configure(id: string): void {
    const input = {
      replica: id,
      seed: seeds.get(id),
      genesis,
      nats: ["-"],
      postgres: "-",
      stores: [],
      timing: options.timing ?? {},
      log: options.log ?? {},
    };
    members.set(id, { config: parseReplicaConfig(input), files: createMemoryFiles(), running: null });
  }
  for (const id of ids) configure(id);
  const member = (id: string): Member => {
    const found = members.get(id);
    if (!found) throw new Error(`no member ${id}`);
    return found;
  };
  const running = (): Replica[] => [...members.values()].flatMap((m) => (m.running ? [m.running.replica] : []));

  async function start(id: string): Promise<Replica> {
    const m = member(id);
    const transport = await options.connect(id);
    const stores = await options.openStores({ groupId, replica: id, engine: genesis.engine });
    const onEvent = (event: ReplicaEvent): void => void events.get(id)?.push(event);
    const snapshots = { folder: snapshotFolder(`/${id}`, m.files), connect: () => options.connect(id) };
    const parts = { config: m.config, transport, stores, runtime: realRuntime(), snapshots, onEvent };
    const replica = await (genesis.engine === "paxos"
      ? startReplica({ ...parts, engine: paxosEngine })
      : startReplica({ ...parts, engine: raftEngine }));
    m.running = { replica, stores, transport };
    return replica;
  }

  async function stop(id: string, crash: boolean): Promise<void> {
    const m = member(id);
    const it = m.running;
    m.running = null;
    if (!it) return;
    if (crash) await it.transport.close();
    if (crash) await it.stores.close();
    await it.replica.close();
    await it.stores.close();
    await it.transport.close();
  }

  async function leader(): Promise<string> {
    const found = await waitFor(
      () =>
        running()
          .map((replica) => replica.status())
          .find((s) => s.role === "leader" && s.commit > 0),
      { timeoutMs: 15_000, what: "a leader", everyMs: 5 },
    );
    return found.replica;
  }

  async function propose(encoded: Uint8Array): Promise<ProposeReply> {
    let target = await leader();
    for (let attempt = 0; attempt < 200; attempt++) {
      try {
        const subject = SUBJECTS.api(genesis.name, target, "propose");
        const reply = decodeApi(proposeReply, await client.request(subject, encoded, { timeoutMs: 2000 }));
        if (reply.ok || (reply.error.code !== "not_leader" && reply.error.code !== "unavailable")) return reply;
      } catch {
        // Lost or not there: the leader is looked for again.
      }
      await new Promise((resolve) => setTimeout(resolve, 25));
      target = await leader();
    }
    throw new Error("no leader took the command");
  }

  async function confirm(
    query: CatalogQuery,
    wanted = running().length,
  ): Promise<readonly { replica: string; agreed: AgreedPart }[]> {
    const answerTo = client.inbox();
    const nonce = randomBytes(16).toString("hex");
    const answers: { replica: string; agreed: AgreedPart }[] = [];
    const subscription = client.subscribe(answerTo, ({ data }) => {
      const { agreed, own, signature } = decodeApi(confirmAnswer, data);
      const { replica } = JSON.parse(new TextDecoder().decode(own)) as { replica: string };
      const key = publicKeyHex(seeds.get(replica) ?? "");
      if (!verify(key, hashAs("answer", agreed, own), signature)) throw new Error(`${replica}: bad signature`);
      answers.push({ replica, agreed: agreedPart.parse(JSON.parse(new TextDecoder().decode(agreed))) });
    });
    await client.flush(1000);
    const request: ConfirmRequest = { nonce, query, answerTo, waitMs: 2000 };
    client.publish(SUBJECTS.api(genesis.name, await leader(), "confirm"), encodeApi(request));
    await waitFor(() => (answers.length >= wanted ? true : null), { timeoutMs: 5000, what: "all answers", everyMs: 2 });
    subscription.close();
    return answers;
  }

  return {
    genesis,
    ids,
    groupId,
    client,
    events,
    start,
    make(id) {
      seeds.set(id, createSeed());
      events.set(id, []);
      configure(id);
      return { id, publicKey: publicKeyHex(seeds.get(id) ?? "") };
    },
    seedOf: (id) => seeds.get(id) ?? "",
    kill: (id) => stop(id, true),
    replica: (id) => {
      const it = member(id).running;
      if (!it) throw new Error(`${id} is not running`);
      return it.replica;
    },
    running,
    leader,
    propose,
    async agreed() {
      return waitFor(
        () => {
          const all = running().map((replica) => replica.status());
          const equal = all.every((s) => s.applied === all[0]?.applied && s.applied === s.lastIndex && s.applied > 0);
          return equal ? all.map((s) => s.chain) : null;
        },
        { timeoutMs: 15_000, what: "equal applied indexes" },
      );
    },
    confirm,
    async close() {
      await Promise.all([...members.keys()].map((id) => stop(id, false)));
      await client.close();
    },
  };
}
