/**
 * Owns the channel between replicas: envelopes out, envelopes in, and the greeting at the start of each life.
 *
 * After every boot a replica says hello until every other voter has welcomed it or one election timeout has passed; only
 * then may it vote. Who is a member follows the configuration in force; who else writes is heard too (`peer-set.ts`). Whoever knows of a promise that its database has lost says so instead. It goes on without answers
 * because a whole group must be able to start at once, and because one dead peer must not keep the others from voting.
 */
import { z } from "zod";
import type { Configuration } from "../consensus/engine.ts";
import { SUBJECTS } from "../model/api.ts";
import { bytesEqual } from "../model/bytes.ts";
import { toShardpactError } from "../model/errors.ts";
import { isReplicaId } from "../model/names.ts";
import type { LogState, LogStore, PeerRecord, StoreIdentity } from "../storage/port.ts";
import type { Message, Transport } from "../transport/port.ts";
import { type DurablePoint, type PeerHeader, type PeerKind, createEnvelopeCodec } from "./envelope.ts";
import type { ChosenEpochAt } from "./identity.ts";
import { createPeerSet } from "./peer-set.ts";
import type { Runtime } from "./runtime.ts";

const HELLO_EVERY_MS = 50;
/** Messages of one peer that wait while its new boot is made durable; what is more is lost, as on any bad link. */
const HELD_BACK_MAX = 256;
/** Members, and who else was answered. */
const SUBJECTS_KEPT = 64;
const NO_BODY = new Uint8Array(0);

/** `about`: which life is told; a later one is not concerned. */
const lostBody = z.object({ incarnation: z.string(), boot: z.number(), life: z.number(), reason: z.string() });

export interface Peers {
  send(kind: PeerKind, to: string, body: Uint8Array): void;
  /** Says hello; `done` is called once, when the greeting is over. */
  greet(deadlineMs: number, done: () => void): void;
  /** Peers' wall clocks minus ours in ms, heard lately. */
  clockOffsetsMs(windowMs: number): readonly number[];
  /** The voter that was heard of last within `windowMs`. */
  lastHeard(windowMs: number): string | null;
  /** Another configuration is in force. */
  follow(configuration: Configuration): void;
  stop(): Promise<void>;
}

export interface PeersOptions {
  readonly group: string;
  readonly groupId: string;
  readonly replica: string;
  readonly engine: StoreIdentity["engine"];
  /** In force at the start. */
  readonly configuration: Configuration;
  readonly start: LogState;
  readonly transport: Transport;
  readonly log: LogStore;
  readonly runtime: Runtime;
  durable(): DurablePoint;
  /** Whether this replica votes and counts at the moment. */
  voting(): boolean;
  readonly chosenEpochAt: ChosenEpochAt;
  onEngine(from: string, body: Uint8Array): void;
  onConfirm(from: string, body: Uint8Array): void;
  onRead(kind: "read_index" | "read_at", from: string, body: Uint8Array): void;
  onDigest(from: string, body: Uint8Array): void;
  /** A peer knows of a promise that this database has lost. */
  onLost(reason: string): void;
  /** A peer came back with fewer entries than it acknowledged: what was counted on it may not hold. */
  onDoubt(reason: string): void;
  onFailure(error: unknown): void;
}

interface Held {
  readonly header: PeerHeader;
  readonly body: Uint8Array;
}

export function createPeers(options: PeersOptions): Peers {
  const { group, replica, start, transport, runtime, log } = options;
  const codec = createEnvelopeCodec(options.groupId);
  const set = createPeerSet(replica, options.configuration, start.peers, options.engine);
  const life = runtime.randomU32();
  const heldBack = new Map<string, Held[]>();
  const recordings = new Set<Promise<void>>();
  const welcomed = new Set<string>();
  let onWelcome = (): void => undefined;
  let cancelGreeting = (): void => undefined;
  let stopped = false;

  const subjects = new Map<string, string>();

  function subjectOf(to: string): string {
    let subject = subjects.get(to);
    if (subject !== undefined) return subject;
    if (subjects.size >= SUBJECTS_KEPT) subjects.clear();
    subjects.set(to, (subject = SUBJECTS.peer(group, to, replica)));
    return subject;
  }

  function send(kind: PeerKind, to: string, body: Uint8Array): void {
    if (stopped || !transport.connected) return;
    const header: PeerHeader = {
      kind,
      from: replica,
      incarnation: start.incarnation,
      boot: start.boot,
      life,
      to,
      toIncarnation: set.incarnationOf(to),
      clockMs: runtime.nowMs(),
      durable: options.durable(),
      voting: options.voting(),
    };
    transport.publish(subjectOf(to), codec.encode(header, body));
  }

  function receive({ subject, data }: Message): void {
    let decoded: Held;
    try {
      decoded = codec.decode(data);
    } catch {
      return; // Another group's or another build's: lost, as on any bad link.
    }
    const { header } = decoded;
    const { from } = header;
    // Only the key of `from` may publish on this subject (nats.conf): that is what proves who asks.
    if (stopped || !isReplicaId(from) || from === replica) return;
    if (header.to !== replica || !subject.endsWith(`.${from}`)) return;
    // Meant for another database of this id. Which of the two has lost its place is for the sender to say (`lost`).
    if (header.toIncarnation !== "" && header.toIncarnation !== start.incarnation && header.kind !== "lost") return;
    accept(decoded);
  }

  /** In the order in which they came, one new boot at a time: a later boot must not be overtaken by an earlier one. */
  function accept(message: Held): void {
    const held = heldBack.get(message.header.from);
    if (!held) return admit(message);
    if (held.length < HELD_BACK_MAX) held.push(message);
  }

  function admit(message: Held): void {
    const { table, durable } = set.tableOf(message.header);
    const admission = table.admit(message.header);
    if (admission.kind === "process") return process(message);
    if (admission.kind === "refuse") return refuse(message.header, admission.reason);
    if (!durable) {
      table.recorded(admission.record, message.header.life);
      return process(message);
    }
    heldBack.set(admission.record.peer, [message]);
    const recording = record(admission.record, message.header.life).finally(() => recordings.delete(recording));
    recordings.add(recording);
  }

  async function record(entry: PeerRecord, peerLife: number): Promise<void> {
    try {
      await log.recordPeer(entry);
    } catch (error) {
      heldBack.delete(entry.peer);
      return options.onFailure(error);
    }
    set.known.recorded(entry, peerLife);
    const held = heldBack.get(entry.peer) ?? [];
    heldBack.delete(entry.peer);
    for (const message of held) {
      if (stopped) return;
      accept(message);
    }
  }

  function refuse({ kind, from, incarnation, boot, life: theirs }: PeerHeader, reason: string): void {
    if (kind === "lost") return; // Two that refuse each other must not answer each other for ever.
    const body: z.infer<typeof lostBody> = { incarnation, boot, life: theirs, reason };
    send("lost", from, Buffer.from(JSON.stringify(body)));
  }

  function process({ header, body }: Held): void {
    const { from } = header;
    const { table } = set.tableOf(header);
    const verdict = table.judge(header, options.chosenEpochAt);
    // One that gave up its vote is helped to catch up; one that may still use it is told, and not listened to.
    if (verdict.kind === "lost" && (header.voting || header.kind === "hello")) return refuse(header, verdict.reason);
    if (verdict.kind === "doubtful" && set.isVoter(from)) options.onDoubt(verdict.reason);
    table.heard(header, runtime.nowMs(), runtime.monotonicMs());
    switch (header.kind) {
      case "engine":
        return options.onEngine(from, body);
      case "confirm":
        return options.onConfirm(from, body);
      case "read_index":
      case "read_at":
        return options.onRead(header.kind, from, body);
      case "digest":
        return options.onDigest(from, body);
      case "hello":
        return send("welcome", from, welcomeOf(header));
      case "welcome":
        // One that was meant for an earlier life has not looked at what this one holds.
        if (!bytesEqual(body, welcomeOf({ boot: start.boot, life }))) return;
        welcomed.add(from);
        return onWelcome();
      case "lost":
        return heardLost(from, body);
    }
  }

  function heardLost(from: string, body: Uint8Array): void {
    const parsed = lostBody.safeParse(parseJson(body));
    if (!parsed.success) return;
    const about = parsed.data;
    // About an earlier life, or another process with this id: that one hears it too.
    if (about.incarnation !== start.incarnation || about.boot !== start.boot || about.life !== life) return;
    options.onLost(`${from} says: ${about.reason}`);
  }

  const subscription = transport.subscribe(SUBJECTS.peer(group, replica, "*"), receive);

  return {
    send,
    greet(deadlineMs, done) {
      const sayHello = (): void => {
        for (const to of set.members()) if (!welcomed.has(to)) send("hello", to, NO_BODY);
      };
      const over = (): void => {
        cancelGreeting();
        onWelcome = () => undefined;
        if (!stopped) done();
      };
      const complete = (): boolean => set.voters().every((id) => welcomed.has(id));
      if (complete()) return over();
      const cancelEvery = runtime.every(HELLO_EVERY_MS, sayHello);
      const cancelAfter = runtime.after(deadlineMs, over);
      cancelGreeting = () => {
        cancelEvery();
        cancelAfter();
      };
      onWelcome = () => {
        if (complete()) over();
      };
      sayHello();
    },
    clockOffsetsMs: (windowMs) => set.known.clockOffsetsMs(set.voters(), runtime.monotonicMs(), windowMs),
    lastHeard: (windowMs) => set.known.lastHeard(set.voters(), runtime.monotonicMs() - windowMs),
    follow: (configuration) => set.follow(configuration),
    async stop() {
      stopped = true;
      subscription.close();
      cancelGreeting();
      await Promise.allSettled(recordings);
    },
  };
}

/** Names the life that is welcomed. */
function welcomeOf({ boot, life }: Pick<PeerHeader, "boot" | "life">): Uint8Array {
  return Buffer.from(JSON.stringify({ boot, life }));
}

function parseJson(bytes: Uint8Array): unknown {
  try {
    return JSON.parse(Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength).toString("utf8"));
  } catch (error) {
    return toShardpactError(error).code;
  }
}
