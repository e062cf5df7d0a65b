/**
 * Owns one life of a replica: from a boot of its store to the first failure, with one engine instance.
 *
 * Every event passes through `feed`, one at a time; effects run in order before the next event. A failed or unknown
 * write ends the session for good (E5): the shell boots the store again and starts another.
 */
import type { AppliedEntry } from "../catalog/apply.ts";
import type {
  Configuration,
  Effect,
  Engine,
  EngineEvent,
  EngineKind,
  EngineStatus,
  LogIndex,
} from "../consensus/engine.ts";
import { genesis } from "../model/api.ts";
import { ShardpactError, isShardpactError, toShardpactError } from "../model/errors.ts";
import { LIMITS } from "../model/limits.ts";
import type { LogState, ReplicaStores } from "../storage/port.ts";
import type { Transport } from "../transport/port.ts";
import { type ApplyLoop, createApplyLoop } from "./apply-loop.ts";
import type { GroupIdentity, ReplicaConfig } from "./config.ts";
import { createEffectRunner } from "./effects.ts";
import { type Peers, createPeers } from "./peers.ts";
import { type PersistQueue, createPersistQueue } from "./persist-queue.ts";
import { type Proposals, createProposals } from "./proposals.ts";
import { createRecentEntries } from "./recent-entries.ts";
import type { Runtime } from "./runtime.ts";
import { createWatchdog } from "./watchdog.ts";

/** What every session of a replica shares. */
export interface SessionContext<M> {
  readonly config: ReplicaConfig;
  readonly identity: GroupIdentity;
  readonly transport: Transport;
  readonly stores: ReplicaStores;
  readonly engine: EngineKind<M>;
  readonly runtime: Runtime;
}

export interface SessionEvents {
  status(status: EngineStatus): void;
  /** Neither votes nor counts from now on. */
  nonVoting(reason: string): void;
  /** The leader gave up by its own choice. */
  steppedDown(reason: string): void;
  /** A peer's confirmation to answer. */
  confirm(body: Uint8Array): void;
  /** The session is over. */
  failed(error: ShardpactError): void;
  /** The session is over, and no other may follow. */
  halted(error: ShardpactError): void;
}

export interface Session {
  readonly start: LogState;
  readonly apply: ApplyLoop;
  readonly proposals: Proposals;
  readonly peers: Peers;
  engineStatus(): EngineStatus;
  /** Resolves when nothing of this session runs any more. Open proposals fail with `error`. */
  stop(error: ShardpactError): Promise<void>;
}

export function startSession<M>(context: SessionContext<M>, start: LogState, events: SessionEvents): Session {
  const { config, identity, transport, stores, runtime } = context;
  const { tickMs, electionTicksMax } = config.timing;
  const electionMaxMs = tickMs * electionTicksMax;
  const nonVotingReason = whyNotVoting(start);
  const engine = createEngine(context, start);
  const recent = createRecentEntries();
  const queue: EngineEvent<M>[] = [];
  let draining = false;
  let over = false;
  let mayVote = nonVotingReason === null;

  function end(error: unknown, kind: "failed" | "halted"): void {
    if (over) return;
    over = true;
    events[kind](toShardpactError(error));
  }
  const fail = (error: unknown): void =>
    end(
      error,
      isShardpactError(error, "upgrade_required") || isShardpactError(error, "config_invalid") ? "halted" : "failed",
    );

  function feed(event: EngineEvent<M>): void {
    queue.push(event);
    if (draining) return;
    draining = true;
    try {
      for (let next = queue.shift(); next && !over; next = queue.shift()) effects.run(engine.step(next));
    } catch (error) {
      // The engine or the shell contradicts itself: nothing that follows could be trusted.
      end(error, "halted");
    } finally {
      draining = false;
    }
  }

  function stopVoting(reason: string): void {
    if (over || !mayVote) return;
    mayVote = false;
    feed({ kind: "voting", allowed: false });
    events.nonVoting(reason);
  }

  function stepDown(reason: string): void {
    if (engine.status().role !== "leader") return;
    events.steppedDown(reason);
    feed({ kind: "step_down", reason });
  }

  const effects = createEffectRunner<M>({
    persist(effect) {
      if (effect.removeFrom !== null) proposals.removed(effect.removeFrom);
      persistQueue.push(effect);
    },
    send: (to, message) => peers.send("engine", to, context.engine.encodeMessage(message)),
    load: (effect) => void load(effect),
    commit: (index) => apply.commit(index),
    accepted: (effect) => proposals.accepted(effect),
    rejected: (effect) => proposals.rejected(effect),
    status: (effect) => events.status(effect.status),
    halt: (reason) =>
      end(
        new ShardpactError("replica_diverged", reason, {
          hint: "Compare the replicas' databases; this one is kept as it is.",
        }),
        "halted",
      ),
  });

  async function load(effect: Extract<Effect<M>, { kind: "load" }>): Promise<void> {
    const { token, from, to, bytesMax } = effect;
    try {
      const entries = await stores.log.read(from, to, bytesMax);
      if (!over) feed({ kind: "loaded", token, entries });
    } catch (error) {
      if (over) return;
      if (!isShardpactError(error, "damaged")) return fail(error);
      feed({ kind: "load_failed", token });
      stopVoting(error.message);
    }
  }

  const persistQueue: PersistQueue = createPersistQueue({
    log: stores.log,
    start,
    recent,
    monotonicMs: runtime.monotonicMs,
    onDurable(token) {
      if (over) return;
      effects.release(token);
      feed({ kind: "persisted", token });
      apply.durable();
    },
    onFailure: fail,
  });

  const apply: ApplyLoop = createApplyLoop({
    catalog: stores.catalog,
    log: stores.log,
    recent,
    start: start.applied,
    epochRuns: start.epochRuns,
    genesisBytes: identity.genesisBytes,
    durableLast: () => persistQueue.durable().lastIndex,
    after: runtime.after,
    onApplied(entries: readonly AppliedEntry[], { index, chain }) {
      if (over) return;
      proposals.applied(entries);
      feed({ kind: "applied", point: { index, chain } });
    },
    onFailure(error) {
      // Damaged is not absent: what is there stays, for repair; applying ends here.
      if (isShardpactError(error, "damaged")) stopVoting(error.message);
      else fail(error);
    },
  });

  const proposals: Proposals = createProposals({
    propose: (batch) => feed({ kind: "propose", proposals: batch }),
    isLeader: () => engine.status().role === "leader",
    leader: () => engine.status().leader,
    nowMs: runtime.nowMs,
    monotonicMs: runtime.monotonicMs,
  });

  async function loseVote(reason: string): Promise<void> {
    stopVoting(reason);
    try {
      await stores.log.loseVote(reason);
    } catch (error) {
      fail(error);
    }
  }

  const voters = config.genesis.voters.map((voter) => voter.id);
  const peers: Peers = createPeers({
    group: config.genesis.name,
    groupId: identity.groupId,
    replica: config.replica,
    others: voters.filter((id) => id !== config.replica),
    start,
    transport,
    log: stores.log,
    runtime,
    durable: persistQueue.durable,
    chosenEpochAt: (index: LogIndex) => apply.chosenEpochAt(index),
    onEngine(from, body) {
      let message: M;
      try {
        message = context.engine.decodeMessage(body);
      } catch {
        return; // Malformed: lost, as on any bad link.
      }
      feed({ kind: "message", from, message });
    },
    onConfirm: (_from, body) => events.confirm(body),
    onLost: (reason) => void loseVote(reason),
    onDoubt: stepDown,
    onFailure: fail,
  });

  const watchdog = createWatchdog({
    tickMs,
    electionMaxMs,
    runtime,
    oldestWriteMs: persistQueue.oldestMs,
    clockOffsetsMs: peers.clockOffsetsMs,
    stepDown,
  });
  const cancelTicks = runtime.every(tickMs, () => {
    if (over) return;
    watchdog.tick();
    feed({ kind: "tick" });
    proposals.sweep();
  });

  peers.greet(electionMaxMs, () => {
    if (mayVote && !over) feed({ kind: "voting", allowed: true });
  });
  if (nonVotingReason !== null) events.nonVoting(nonVotingReason);
  events.status(engine.status());

  return {
    start,
    apply,
    proposals,
    peers,
    engineStatus: () => engine.status(),
    async stop(error) {
      over = true;
      cancelTicks();
      proposals.failAll(error);
      await Promise.all([peers.stop(), persistQueue.stop(), apply.stop()]);
    },
  };
}

function whyNotVoting(start: LogState): string | null {
  if (start.damaged.length > 0) return `log entries are damaged or missing: ${start.damaged.slice(0, 8).join(", ")}`;
  return start.voting ? null : "this database has lost promises that it made";
}

/** Starts without a vote: the greeting comes first. */
function createEngine<M>({ config, identity, engine, runtime }: SessionContext<M>, start: LogState): Engine<M> {
  const { heartbeatTicks, electionTicksMin, electionTicksMax } = config.timing;
  const first = { index: 0, configuration: decodeConfiguration(identity.genesisBytes) };
  const later = start.configurations.map(({ index, payload }) => ({
    index,
    configuration: decodeConfiguration(payload),
  }));
  return engine.create(
    {
      id: config.replica,
      hardState: start.hardState,
      lastIndex: start.lastIndex,
      epochRuns: start.epochRuns,
      applied: { index: start.applied.index, chain: start.applied.chain },
      configurations: [first, ...later],
      genesis: identity.genesisBytes,
      voting: false,
    },
    {
      heartbeatTicks,
      electionTicksMin,
      electionTicksMax,
      appendEntriesMax: LIMITS.appendEntriesMax,
      appendBytesMax: LIMITS.appendBytesMax,
      inflightAppendsMax: LIMITS.inflightAppendsMax,
      proposalsInFlightMax: LIMITS.proposalsInFlightMax,
      logCacheBytesMax: LIMITS.logCacheBytesMax,
      randomU32: runtime.randomU32,
      decodeConfiguration,
    },
  );
}

/** The configuration that a `config` entry holds: at this level always the group's first. */
function decodeConfiguration(payload: Uint8Array): Configuration {
  const parsed = genesis.parse(JSON.parse(new TextDecoder().decode(payload)));
  return { voters: parsed.voters.map((voter) => voter.id), votersOutgoing: [], learners: [] };
}
