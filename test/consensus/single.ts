/**
 * Owns helpers for tests of one engine: make it in a given state, feed events, look at effects.
 */
import type {
  Configuration,
  Effect,
  Engine,
  EngineEvent,
  EngineStart,
  EngineTuning,
  Entry,
  ReplicaId,
} from "../../src/consensus/engine.ts";
import { type RaftMessage, raftEngine } from "../../src/consensus/raft/index.ts";
import { decodeConfiguration, encodeConfiguration, runsOf } from "./node.ts";

export type RaftEffect = Effect<RaftMessage>;
export type EffectOf<K extends RaftEffect["kind"]> = Extract<RaftEffect, { kind: K }>;
export type MessageOf<K extends RaftMessage["kind"]> = Extract<RaftMessage, { kind: K }>;

export const THREE: Configuration = { voters: ["A", "B", "C"], votersOutgoing: [], learners: [] };

export const TUNING: EngineTuning = {
  heartbeatTicks: 1,
  electionTicksMin: 10,
  electionTicksMax: 11,
  appendEntriesMax: 64,
  appendBytesMax: 4096,
  inflightAppendsMax: 4,
  proposalsInFlightMax: 100,
  logCacheBytesMax: 1 << 20,
  randomU32: () => 0,
  decodeConfiguration,
  encodeConfiguration,
};

export interface Single {
  readonly engine: Engine<RaftMessage>;
  /** Feeds an event; writes stay under way. */
  step(event: EngineEvent<RaftMessage>): readonly RaftEffect[];
  /** Feeds an event and completes every write that it and its completions start. */
  run(event: EngineEvent<RaftMessage>): readonly RaftEffect[];
  receive(from: ReplicaId, message: RaftMessage): readonly RaftEffect[];
  tick(count: number): readonly RaftEffect[];
  /** A follower that times out wins an election with the vote of `voter`, and its first entry commits if `commit`. */
  lead(voter?: ReplicaId, commit?: boolean): readonly RaftEffect[];
  propose(...payloads: string[]): readonly RaftEffect[];
}

/** Entries 1… with these epochs; commands, so the log needs no configuration. */
export function entriesOf(epochs: readonly number[], first = 1): Entry[] {
  return epochs.map((epoch, i) => ({
    index: first + i,
    epoch,
    kind: "command",
    payload: bytesOf(`${first + i}@${epoch}`),
  }));
}

export function bytesOf(text: string): Uint8Array {
  return new TextEncoder().encode(text);
}

export function single(
  options: Partial<EngineStart> & { readonly log?: readonly number[]; readonly configuration?: Configuration } = {},
  tuning: Partial<EngineTuning> = {},
): Single {
  const { log = [], configuration = THREE, ...given } = options;
  const start: EngineStart = {
    id: "A",
    hardState: { epoch: log.at(-1) ?? 0, votedFor: null },
    lastIndex: log.length,
    epochRuns: runsOf(entriesOf(log)),
    applied: { index: 0, chain: "start" },
    configurations: [{ index: 0, configuration }],
    genesis: encodeConfiguration(configuration),
    voting: true,
    ...given,
  };
  const engine = raftEngine.create(start, { ...TUNING, ...tuning });
  const step = (event: EngineEvent<RaftMessage>): readonly RaftEffect[] => engine.step(event);
  const run = (event: EngineEvent<RaftMessage>): readonly RaftEffect[] => {
    const effects = [...step(event)];
    for (let i = 0; i < effects.length; i += 1) {
      const effect = effects[i];
      if (effect?.kind === "persist") effects.push(...step({ kind: "persisted", token: effect.token }));
    }
    return effects;
  };
  const receive = (from: ReplicaId, message: RaftMessage): readonly RaftEffect[] =>
    run({ kind: "message", from, message });
  const tick = (count: number): readonly RaftEffect[] =>
    Array.from({ length: count }, () => run({ kind: "tick" })).flat();
  return {
    engine,
    step,
    run,
    receive,
    tick,
    lead(voter = "B", commit = true) {
      const epoch = engine.status().epoch + 1;
      const effects = [...tick(TUNING.electionTicksMin)];
      const vote = { kind: "vote_reply", requestEpoch: epoch, granted: true } as const;
      effects.push(...receive(voter, { ...vote, epoch: epoch - 1, pre: true }));
      effects.push(...receive(voter, { ...vote, epoch, pre: false }));
      const match = engine.status().lastIndex;
      if (commit) effects.push(...receive(voter, { kind: "append_accepted", epoch, match, voting: true }));
      return effects;
    },
    propose(...payloads) {
      return run({ kind: "propose", proposals: payloads.map((text, ticket) => ({ ticket, payload: bytesOf(text) })) });
    },
  };
}

export function effectsOf<K extends RaftEffect["kind"]>(effects: readonly RaftEffect[], kind: K): EffectOf<K>[] {
  return effects.filter((effect): effect is EffectOf<K> => effect.kind === kind);
}

/** Messages of a kind among the sends, in order. */
export function messagesOf<K extends RaftMessage["kind"]>(effects: readonly RaftEffect[], kind: K): MessageOf<K>[] {
  return effectsOf(effects, "send")
    .map((send) => send.message)
    .filter((message): message is MessageOf<K> => message.kind === kind);
}
