/**
 * Owns scripted runs of a group: every replica on its own disk, messages delivered when the script says so, and a
 * transcript of what happened, compared with a file in `traces/` and reviewed like code.
 */
import type {
  Configuration,
  Effect,
  EngineKind,
  EngineTuning,
  Entry,
  LogIndex,
  MembershipChange,
  ReplicaId,
} from "../../src/consensus/engine.ts";
import { type RaftMessage, raftEngine } from "../../src/consensus/raft/index.ts";
import {
  answerLoad,
  appliedOf,
  crash,
  createNode,
  type Disk,
  feed,
  flush,
  apply,
  type NodeEnvironment,
  type SimMessage,
  type SimNode,
  start,
} from "./node.ts";
import { bytesOf, entriesOf, TUNING } from "./single.ts";
import { compactTo, install, takeSnapshot, tellCompactions } from "./snapshots.ts";

interface Flight {
  readonly from: ReplicaId;
  readonly to: ReplicaId;
  readonly message: SimMessage;
}

export interface Transcript {
  readonly nodes: ReadonlyMap<ReplicaId, SimNode>;
  note(text: string): void;
  tick(id: ReplicaId, count?: number): void;
  propose(id: ReplicaId, ...payloads: string[]): void;
  read(id: ReplicaId, ticket: number): void;
  transfer(id: ReplicaId, to: ReplicaId): void;
  configure(id: ReplicaId, change: MembershipChange): void;
  /** Drops the log up to `index`. */
  compact(id: ReplicaId, index: LogIndex): void;
  /** Brings the snapshot that `id` wants to bring somewhere. */
  ship(id: ReplicaId): void;
  /** Delivers, flushes and applies until nothing moves; `only` picks the messages, the rest is lost. */
  settle(only?: (flight: Flight) => boolean): void;
  /** The first `count` messages in flight that `only` picks. */
  deliver(count: number, only?: (flight: Flight) => boolean): void;
  lose(only?: (flight: Flight) => boolean): void;
  crash(id: ReplicaId): void;
  restart(id: ReplicaId): void;
  /** Epochs of a log, for example `1 1 4`. */
  logs(): void;
  text(): string;
}

export interface TranscriptSetup {
  readonly configuration: Configuration;
  /** Epochs of the entries that each replica starts with; its epoch is the last one unless `epochs` says more. */
  readonly logs?: Readonly<Record<ReplicaId, readonly number[]>>;
  readonly epochs?: Readonly<Record<ReplicaId, number>>;
  readonly tuning?: Partial<EngineTuning>;
  /** Replicas that the configuration does not name. */
  readonly others?: readonly ReplicaId[];
}

/** One kind of engine, and how a script writes its epochs and messages. */
export interface Wording<M> {
  readonly kind: EngineKind<M>;
  epoch(epoch: number): string;
  message(message: M): string;
}

const RAFT: Wording<RaftMessage> = { kind: raftEngine, epoch: String, message: describeMessage };

export function transcript(setup: TranscriptSetup): Transcript {
  return transcriptOf(setup, RAFT);
}

export function transcriptOf<M extends SimMessage>(setup: TranscriptSetup, wording: Wording<M>): Transcript {
  const lines: string[] = [];
  let network: Flight[] = [];
  const environment: NodeEnvironment = {
    kind: wording.kind,
    tuning: { ...TUNING, ...setup.tuning },
    configuration: setup.configuration,
    released: (node, to, message) => void network.push({ from: node.id, to, message }),
    effect: (node, effect) => {
      const text = describeEffect(effect, wording.epoch);
      const members = effect.kind === "status" ? membersText(effect.status.configuration, setup.configuration) : "";
      if (text !== null) lines.push(`    ${node.id} ${text}${members}`);
    },
    flushing: () => undefined,
  };
  const { voters, learners } = setup.configuration;
  const ids = [...voters, ...learners, ...(setup.others ?? [])];
  const nodes = new Map(ids.map((id) => [id, createNode(id)]));
  for (const [id, node] of nodes) {
    const log = setup.logs?.[id] ?? [];
    node.disk.entries = entriesOf(log);
    node.disk.hardState = { epoch: setup.epochs?.[id] ?? log.at(-1) ?? 0, votedFor: null };
    start(node, environment);
  }
  const get = (id: ReplicaId): SimNode => nodes.get(id) as SimNode;
  const settleDisks = (): void => {
    for (const node of nodes.values()) {
      flush(node, environment);
      while (node.loads.length > 0) answerLoad(node, environment, false);
      apply(node, environment);
    }
  };
  const deliverOne = (flight: Flight): void => {
    lines.push(`  ${flight.from} → ${flight.to} ${wording.message(flight.message as M)}`);
    feed(get(flight.to), environment, { kind: "message", from: flight.from, message: flight.message });
    settleDisks();
  };
  const act = (line: string, id: ReplicaId, event: Parameters<typeof feed>[2]): void => {
    lines.push(line);
    feed(get(id), environment, event);
    settleDisks();
  };
  return {
    nodes,
    note: (text) => void lines.push("", `# ${text}`),
    tick(id, count = 1) {
      lines.push(`${id} tick × ${count}`);
      for (let i = 0; i < count; i += 1) feed(get(id), environment, { kind: "tick" });
      settleDisks();
    },
    propose(id, ...payloads) {
      const proposals = payloads.map((text, i) => ({ ticket: i + 1, payload: bytesOf(text) }));
      act(`${id} propose ${payloads.join(", ")}`, id, { kind: "propose", proposals });
    },
    read: (id, ticket) => act(`${id} read #${ticket}`, id, { kind: "read", ticket }),
    transfer: (id, to) => act(`${id} transfer to ${to}`, id, { kind: "transfer", to }),
    configure(id, change) {
      act(`${id} configure: ${change.kind} ${change.id}${change.kind === "replace" ? ` by ${change.by}` : ""}`, id, {
        kind: "configure",
        ticket: 1,
        change,
        payload: new Uint8Array(0),
      });
    },
    compact(id, index) {
      lines.push(`${id} compacts up to ${index}`);
      compactTo(get(id), environment, index);
      tellCompactions(get(id), environment);
    },
    ship(id) {
      const [to] = get(id).snapshotsWanted.keys();
      if (to === undefined) throw new Error(`${id} wants to bring nobody a snapshot`);
      get(id).snapshotsWanted.delete(to);
      const snapshot = takeSnapshot(get(id), environment, appliedOf(get(id)).index);
      const { index } = snapshot.base;
      lines.push(
        `  ${to} installs the snapshot of ${index}@${wording.epoch(snapshot.base.epoch)} from ${id} and starts from it`,
      );
      install(get(to), environment, snapshot, 0);
      act(`${id} hears that ${to} has the snapshot`, id, { kind: "snapshot_sent", to, index });
    },
    settle(only = () => true) {
      for (let flight = network.shift(); flight !== undefined; flight = network.shift()) {
        if (only(flight)) deliverOne(flight);
      }
    },
    deliver(count, only = () => true) {
      for (let i = 0; i < count; i += 1) {
        const at = network.findIndex(only);
        if (at < 0) throw new Error("nothing to deliver");
        deliverOne(network.splice(at, 1)[0] as Flight);
      }
    },
    lose(only = () => true) {
      const lost = network.filter(only).length;
      network = network.filter((flight) => !only(flight));
      lines.push(`  (${lost} messages lost)`);
    },
    crash(id) {
      lines.push(`${id} crashes`);
      crash(get(id), environment, 0, 0);
      network = network.filter((flight) => flight.to !== id && flight.from !== id);
    },
    restart(id) {
      lines.push(`${id} restarts`);
      start(get(id), environment);
    },
    logs() {
      for (const { id, disk } of nodes.values()) {
        lines.push(`  ${id} log ${logText(disk, wording.epoch)}`);
      }
    },
    text: () => `${lines.join("\n").trim()}\n`,
  };
}

/** Says the configuration in force when it is not the first. */
function membersText(configuration: Configuration, first: Configuration): string {
  const { voters, votersOutgoing, learners } = configuration;
  if (JSON.stringify([voters, learners]) === JSON.stringify([first.voters, first.learners])) return "";
  const outgoing = votersOutgoing.length === 0 ? "" : ` and ${votersOutgoing.join(" ")}`;
  return `; voters ${voters.join(" ")}${outgoing}${learners.length === 0 ? "" : `, learners ${learners.join(" ")}`}`;
}

function logText({ base, entries }: Disk, epochText: (epoch: number) => string): string {
  const before = base.index === 0 ? "" : `(${base.index}@${epochText(base.epoch)}) `;
  return (
    before +
    entries
      .slice(base.index)
      .map(({ epoch }) => epochText(epoch))
      .join(" ")
  );
}

function describeEffect(effect: Effect<SimMessage>, epochText: (epoch: number) => string): string | null {
  switch (effect.kind) {
    case "persist": {
      const state =
        effect.hardState && `epoch ${epochText(effect.hardState.epoch)} vote ${effect.hardState.votedFor ?? "–"}`;
      const removed = effect.removeFrom && `remove from ${effect.removeFrom}`;
      const put = effect.put.length > 0 && `put ${rangeOf(effect.put, epochText)}`;
      return `writes ${[state, removed, put].filter(Boolean).join(", ")}`;
    }
    case "status":
      return `is ${effect.status.role} in epoch ${epochText(effect.status.epoch)}, leader ${effect.status.leader ?? "–"}`;
    case "commit":
      return `commits ${effect.index}`;
    case "read_ready":
      return `read #${effect.ticket} ready at ${effect.index}`;
    case "read_failed":
      return `read #${effect.ticket} failed: ${effect.reason}`;
    case "accepted":
      return `accepts #${effect.ticket} at ${effect.index}`;
    case "rejected":
      return `rejects #${effect.ticket}: ${effect.reason}`;
    case "send_snapshot":
      return `brings ${effect.to} a snapshot of ${effect.indexMin} or later`;
    case "removed":
      return `is out since ${effect.index}`;
    case "halt":
      return `halts: ${effect.reason}`;
    case "load":
      return `loads ${effect.from}…${effect.to}`;
    case "send":
      return null;
  }
}

function describeMessage(message: RaftMessage): string {
  const epoch = `epoch ${message.epoch}`;
  switch (message.kind) {
    case "vote_request": {
      const kind = message.pre ? "pre-vote?" : message.transfer ? "vote (transfer)?" : "vote?";
      return `${kind} ${epoch}, log ends ${message.lastIndex}@${message.lastEpoch}`;
    }
    case "vote_reply":
      return `${message.pre ? "pre-vote" : "vote"} ${message.granted ? "yes" : "no"} for ${message.requestEpoch}, ${epoch}`;
    case "append": {
      const entries = message.entries.length === 0 ? "nothing" : rangeOf(message.entries);
      return `append ${epoch} after ${message.previousIndex}@${message.previousEpoch}: ${entries}, commit ${message.commit}`;
    }
    case "append_accepted":
      return `accepted ${epoch}, match ${message.match}`;
    case "append_rejected":
      return `rejected ${epoch}, not ${message.previousIndex}, hint ${message.hintIndex}@${message.hintEpoch}`;
    case "heartbeat":
      return `heartbeat ${epoch}, round ${message.round}, commit ${message.commit}`;
    case "heartbeat_reply":
      return `heartbeat reply ${epoch}, round ${message.round}`;
    default:
      return `${message.kind} ${epoch}`;
  }
}

export function rangeOf(entries: readonly Entry[], epochText: (epoch: number) => string = String): string {
  return entries.map(({ index, epoch }) => `${index}@${epochText(epoch)}`).join(" ");
}
