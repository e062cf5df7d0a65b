/**
 * Owns scripted runs of a group: every replica on its own disk, messages delivered when the script says so, and a
 * transcript of what happened, compared with a file in `traces/` and reviewed like code.
 */
import type { Configuration, Effect, EngineKind, EngineTuning, Entry, ReplicaId } from "../../src/consensus/engine.ts";
import { type RaftMessage, raftEngine } from "../../src/consensus/raft/index.ts";
import {
  answerLoad,
  crash,
  createNode,
  feed,
  flush,
  apply,
  type NodeEnvironment,
  type SimMessage,
  type SimNode,
  start,
} from "./node.ts";
import { bytesOf, entriesOf, TUNING } from "./single.ts";

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
      if (text !== null) lines.push(`    ${node.id} ${text}`);
    },
    flushing: () => undefined,
  };
  const nodes = new Map(setup.configuration.voters.map((id) => [id, createNode(id)]));
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
        lines.push(`  ${id} log ${disk.entries.map(({ epoch }) => wording.epoch(epoch)).join(" ")}`);
      }
    },
    text: () => `${lines.join("\n").trim()}\n`,
  };
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
