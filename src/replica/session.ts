/**
 * Owns one life of a replica: from a boot of its store to the first failure, with one engine instance.
 *
 * It only connects: engine events come from ticks, peers, proposals, the disk and the apply loop, and each effect goes to
 * the part that owns it. A failed or unknown write ends the session for good; the shell boots the store again.
 */
import type { EngineStatus, LogIndex } from "../consensus/engine.ts";
import { ShardpactError } from "../model/errors.ts";
import type { LogState } from "../storage/port.ts";
import { type ApplyLoop, createApplyLoop } from "./apply-loop.ts";
import type { SessionContext } from "./context.ts";
import { type Driver, type DriverEvents, createDriver } from "./driver.ts";
import { type EffectRunner, createEffectRunner } from "./effects.ts";
import { createEngine } from "./engine-start.ts";
import { type Health, createHealth } from "./health.ts";
import { type Membership, createMembership } from "./membership.ts";
import { type Peers, createPeers } from "./peers.ts";
import { type PersistQueue, type Promised, createPersistQueue } from "./persist-queue.ts";
import { type Proposals, createProposals } from "./proposals.ts";
import { type ReadIndex, createReadIndex } from "./read-index.ts";
import { type RecentEntries, createRecentEntries } from "./recent-entries.ts";
import { answerLoad, whyNotVoting } from "./repair.ts";
import { handOver } from "./hand-over.ts";
import type { SendStep } from "./snapshot-sender.ts";
import { type Upkeep, createUpkeep } from "./upkeep.ts";
import { createWatchdog } from "./watchdog.ts";

export interface SessionEvents extends DriverEvents {
  status(status: EngineStatus): void;
  /** A committed configuration, of `index` or before, does not hold this replica any more. */
  removed(index: LogIndex): void;
  /** A peer's confirmation to answer. */
  confirm(body: Uint8Array): void;
  /** What became of a snapshot for `to`. */
  snapshot(step: SendStep, to: string, index: number, reason: string | null): void;
}

export interface Session {
  readonly start: LogState;
  readonly apply: ApplyLoop;
  readonly proposals: Proposals;
  readonly peers: Peers;
  readonly readIndex: ReadIndex;
  monotonicMs(): number;
  readonly membership: Membership;
  engineStatus(): EngineStatus;
  /** What the database must still hold at the next boot. */
  promised(): Promised;
  /** It has ended: what it knew of its term may be out of date. */
  over(): boolean;
  /** Somebody waits until followers have applied what is chosen. */
  tellCommit(): void;
  /** A read of the catalog failed: ends the session when that tells that this process may not go on (`fenced`). */
  readFailed(error: unknown): void;
  /** @throws ShardpactError `unavailable`: its tables are damaged */
  assertSound(): void;
  /** A leader that is about to stop gives the lead to a live peer, if it can within an election timeout. */
  handOver(): Promise<void>;
  /** Resolves when nothing of this session runs any more. Open proposals fail with `error`. */
  stop(error: ShardpactError): Promise<void>;
}

/** The parts know each other only through callbacks, which run after all parts are there. */
interface Parts<M> {
  readonly context: SessionContext<M>;
  readonly start: LogState;
  readonly events: SessionEvents;
  readonly recent: RecentEntries;
  readonly driver: Driver<M>;
  readonly effects: EffectRunner<M>;
  readonly disk: PersistQueue;
  readonly apply: ApplyLoop;
  readonly proposals: Proposals;
  readonly readIndex: ReadIndex;
  readonly peers: Peers;
  readonly upkeep: Upkeep;
  readonly membership: Membership;
  readonly health: Health;
}

export function startSession<M>(context: SessionContext<M>, start: LogState, events: SessionEvents): Session {
  const { runtime, config } = context;
  const { tickMs, electionTicksMax } = config.timing;
  const electionMaxMs = tickMs * electionTicksMax;
  const notVoting = whyNotVoting(start);
  const parts = buildParts(context, start, events, notVoting === null);
  const { driver, disk, apply, proposals, peers, readIndex, membership } = parts;

  const watchdog = createWatchdog({
    tickMs,
    electionMaxMs,
    runtime,
    oldestWriteMs: () => disk.oldestMs(),
    clockOffsetsMs: (windowMs) => peers.clockOffsetsMs(windowMs),
    stepDown: (reason) => driver.stepDown(reason),
  });
  const cancelTicks = runtime.every(tickMs, () => {
    if (driver.over()) return;
    watchdog.tick();
    disk.tick();
    driver.feed({ kind: "tick" });
    proposals.sweep();
    parts.health.tick();
  });
  peers.greet(electionMaxMs, () => driver.startVoting());
  if (notVoting !== null) events.nonVoting(notVoting);
  parts.health.begin();
  events.status(driver.status());

  return {
    ...{ start, apply, proposals, peers, readIndex, membership },
    monotonicMs: () => runtime.monotonicMs(),
    engineStatus: () => driver.status(),
    promised: () => disk.promised(),
    over: () => driver.over(),
    tellCommit: () => driver.feed({ kind: "tell_commit" }),
    readFailed: (error) => parts.health.readFailed(error),
    assertSound: () => parts.health.assertSound(),
    handOver: () => handOver({ driver, peers, runtime, timeoutMs: electionMaxMs }),
    async stop(error) {
      driver.stop();
      cancelTicks();
      proposals.failAll(error);
      readIndex.stop();
      membership.stop();
      await Promise.all([parts.upkeep.stop(), peers.stop(), disk.stop(), apply.stop()]);
    },
  };
}

function buildParts<M>(context: SessionContext<M>, start: LogState, events: SessionEvents, mayVote: boolean): Parts<M> {
  const { runtime } = context;
  const driver = createDriver<M>({
    engine: createEngine(context, start),
    mayVote,
    events,
    run: (effects) => parts.effects.run(effects),
  });
  const late = (): Parts<M> => parts;
  const parts: Parts<M> = {
    context,
    start,
    events,
    recent: createRecentEntries(),
    driver,
    membership: createMembership(context, start, driver, late),
    effects: effectsOf(late, context),
    proposals: createProposals({
      propose: (proposals) => driver.feed({ kind: "propose", proposals }),
      admit: (command) => late().membership.signatures.admit(command),
      isLeader: () => driver.status().role === "leader",
      leader: () => driver.status().leader,
      nowMs: () => runtime.nowMs(),
      monotonicMs: () => runtime.monotonicMs(),
    }),
    readIndex: createReadIndex({
      runtime,
      resendMs: context.config.timing.tickMs * context.config.timing.electionTicksMin,
      status: () => driver.status(),
      read: (ticket) => driver.feed({ kind: "read", ticket }),
      send: (kind, to, body) => late().peers.send(kind, to, body),
    }),
    get disk() {
      return disk;
    },
    get apply() {
      return apply;
    },
    get peers() {
      return peers;
    },
    get upkeep() {
      return upkeep;
    },
    get health() {
      return health;
    },
  };
  const disk = diskOf(parts);
  const apply = applyOf(parts);
  const peers = peersOf(parts);
  const upkeep = createUpkeep({
    ...{ context, start, apply },
    feed: (event) => driver.feed(event),
    over: () => driver.over(),
    fail: (error) => driver.fail(error),
    onStep: (...step) => events.snapshot(...step),
  });
  const health = createHealth({ context, start, driver, disk, apply, peers, readIndex: parts.readIndex });
  return parts;
}

function effectsOf<M>(late: () => Parts<M>, { engine, stores }: SessionContext<M>): EffectRunner<M> {
  return createEffectRunner<M>({
    persist(effect) {
      if (effect.removeFrom !== null) late().proposals.removed(effect.removeFrom);
      late().upkeep.wrote(effect.put);
      late().disk.push(effect);
    },
    send: (to, message) => late().peers.send("engine", to, engine.encodeMessage(message)),
    load(effect) {
      const { driver, apply, health } = late();
      void answerLoad({ driver, log: stores.log, applied: apply.applied().index, fail: health.failed }, effect);
    },
    commit: (index) => late().apply.commit(index),
    accepted: (effect) => late().membership.admin.accepted(effect) || late().proposals.accepted(effect),
    rejected: (effect) => late().membership.admin.rejected(effect) || late().proposals.rejected(effect),
    sendSnapshot: (to, indexMin) => late().upkeep.sendSnapshot(to, indexMin),
    status({ status }) {
      late().upkeep.status(status);
      late().peers.follow(status.configuration);
      late().events.status(status);
    },
    readReady: ({ ticket, index }) => late().readIndex.ready(ticket, index),
    readFailed: ({ ticket }) => late().readIndex.failed(ticket),
    removed: (index) => late().events.removed(index),
    halt: (reason) =>
      late().driver.halt(
        new ShardpactError("replica_diverged", reason, {
          hint: "Compare the replicas' databases; this one is kept as it is.",
        }),
      ),
  });
}

function diskOf<M>(parts: Parts<M>): PersistQueue {
  const { context, start, recent, driver, effects } = parts;
  return createPersistQueue({
    log: context.stores.log,
    start,
    recent,
    monotonicMs: () => context.runtime.monotonicMs(),
    onDurable(token) {
      if (driver.over()) return;
      effects.release(token);
      driver.feed({ kind: "persisted", token });
      parts.apply.durable();
    },
    onFailure: (error) => driver.fail(error),
  });
}

function applyOf<M>(parts: Parts<M>): ApplyLoop {
  const { context, start, recent, driver, proposals } = parts;
  return createApplyLoop({
    catalog: context.stores.catalog,
    log: context.stores.log,
    recent,
    start: start.applied,
    epochRuns: start.epochRuns,
    genesisBytes: context.identity.genesisBytes,
    durableLast: () => parts.disk.settledLast(),
    isLeader: () => driver.status().role === "leader",
    after: (ms, fn) => context.runtime.after(ms, fn),
    onConfiguration: ({ index, payload }) => parts.membership.applied(index, payload),
    onApplied(entries, state) {
      const { index, chain } = state;
      if (driver.over()) return;
      proposals.applied(entries);
      driver.feed({ kind: "applied", point: { index, chain } });
      parts.upkeep.applied();
      parts.health.applied(state);
    },
    onFailure: (error) => parts.health.failed(error),
  });
}

function peersOf<M>(parts: Parts<M>): Peers {
  const { context, start, driver, events } = parts;
  const { config, identity, transport, stores, runtime, engine } = context;
  return createPeers({
    group: config.genesis.name,
    groupId: identity.groupId,
    replica: config.replica,
    engine: engine.name,
    configuration: driver.status().configuration,
    start,
    transport,
    log: stores.log,
    runtime,
    durable: () => parts.disk.durable(),
    voting: () => driver.status().voting,
    chosenEpochAt: (index) => parts.apply.chosenEpochAt(index),
    onEngine(from, body) {
      let message: M;
      try {
        message = engine.decodeMessage(body);
      } catch {
        return; // Malformed: lost, as on any bad link.
      }
      driver.feed({ kind: "message", from, message });
    },
    onConfirm: (_from, body) => events.confirm(body),
    onRead: (kind, from, body) => parts.readIndex.receive(kind, from, body),
    onDigest: (from, body) => parts.health.digest(from, body),
    onLost: (reason) => parts.health.lost(reason),
    onDoubt: (reason) => driver.stepDown(reason),
    onFailure: (error) => driver.fail(error),
  });
}
