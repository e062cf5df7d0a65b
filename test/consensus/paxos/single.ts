/**
 * Owns helpers for tests of one Multi-Paxos engine: make it in a given state, feed events, look at effects.
 */
import type {
  Configuration,
  Effect,
  Engine,
  EngineEvent,
  EngineStart,
  EngineTuning,
  Entry,
  Epoch,
  LogIndex,
  ReplicaId,
} from "../../../src/consensus/engine.ts";
import { type PaxosMessage, paxosEngine } from "../../../src/consensus/paxos/index.ts";
import { encodeConfiguration, runsOf } from "../node.ts";
import { bytesOf, THREE, TUNING } from "../single.ts";

export type PaxosEffect = Effect<PaxosMessage>;
export type EffectOf<K extends PaxosEffect["kind"]> = Extract<PaxosEffect, { kind: K }>;
export type MessageOf<K extends PaxosMessage["kind"]> = Extract<PaxosMessage, { kind: K }>;

/** The ballot of a round, drawn by A, B or C, which are the group's first to third member. */
export function ballot(round: number, by: "A" | "B" | "C" | "D" | "E" = "A"): Epoch {
  return round * 2 ** 16 + "ABCDE".indexOf(by) + 1;
}

/** Slots 1… accepted in these ballots; commands that tell slot and ballot. */
export function slotsOf(ballots: readonly Epoch[], first = 1): Entry[] {
  return ballots.map((epoch, i) => slot(first + i, epoch));
}

export function slot(index: LogIndex, epoch: Epoch, text = `${index}@${epoch}`): Entry {
  return { index, epoch, kind: "command", payload: bytesOf(text) };
}

export interface Single {
  readonly engine: Engine<PaxosMessage>;
  /** Feeds an event; writes stay under way. */
  step(event: EngineEvent<PaxosMessage>): readonly PaxosEffect[];
  /** Feeds an event, completes every write and answers every load that it and its completions start. */
  run(event: EngineEvent<PaxosMessage>): readonly PaxosEffect[];
  receive(from: ReplicaId, message: PaxosMessage): readonly PaxosEffect[];
  tick(count: number): readonly PaxosEffect[];
  /** Times out, and asks for a promise as B would give it in advance; returns the ballot that it prepares. */
  prepare(): { readonly ballot: Epoch; readonly effects: readonly PaxosEffect[] };
  /** Prepares, and B promises with what it accepted; everything is accepted by B if `choose`. */
  lead(told?: readonly Entry[], choose?: boolean): readonly PaxosEffect[];
  propose(...payloads: string[]): readonly PaxosEffect[];
}

export interface SingleOptions extends Partial<EngineStart> {
  readonly log?: readonly Entry[];
  readonly configuration?: Configuration;
}

export function single(options: SingleOptions = {}, tuning: Partial<EngineTuning> = {}): Single {
  const { log = [], configuration = THREE, ...given } = options;
  const start: EngineStart = {
    id: "A",
    hardState: { epoch: Math.max(0, ...log.map(({ epoch }) => epoch)), votedFor: null },
    lastIndex: log.length,
    epochRuns: runsOf(log),
    applied: { index: 0, chain: "start" },
    configurations: [{ index: 0, configuration }],
    genesis: encodeConfiguration(configuration),
    voting: true,
    ...given,
  };
  const engine = paxosEngine.create(start, { ...TUNING, ...tuning });
  const disk = new Map(log.map((entry) => [entry.index, entry]));
  const step = (event: EngineEvent<PaxosMessage>): readonly PaxosEffect[] => engine.step(event);
  const complete = (effect: PaxosEffect): readonly PaxosEffect[] => {
    if (effect.kind === "persist") {
      for (const entry of effect.put) disk.set(entry.index, entry);
      return step({ kind: "persisted", token: effect.token });
    }
    if (effect.kind !== "load") return [];
    const entries = [...disk.values()].filter(({ index }) => index >= effect.from && index <= effect.to);
    return step({ kind: "loaded", token: effect.token, entries: entries.toSorted((a, b) => a.index - b.index) });
  };
  const run = (event: EngineEvent<PaxosMessage>): readonly PaxosEffect[] => {
    const effects = [...step(event)];
    for (let i = 0; i < effects.length; i += 1) effects.push(...complete(effects[i] as PaxosEffect));
    return effects;
  };
  const receive = (from: ReplicaId, message: PaxosMessage): readonly PaxosEffect[] =>
    run({ kind: "message", from, message });
  const tick = (count: number): readonly PaxosEffect[] =>
    Array.from({ length: count }, () => run({ kind: "tick" })).flat();
  const prepare: Single["prepare"] = () => {
    const effects = [...tick(TUNING.electionTicksMin)];
    const asked = messagesOf(effects, "prepare").at(-1)?.epoch ?? 0;
    const { epoch } = engine.status();
    const would = { kind: "promise", asked, pre: true, granted: true, from: 1, lastIndex: 0, commit: 0 } as const;
    effects.push(...receive("B", { ...would, epoch, entries: [] }));
    return { ballot: asked, effects };
  };
  return {
    engine,
    step,
    run,
    receive,
    tick,
    prepare,
    lead(told = [], choose = true) {
      const { ballot: epoch, effects } = prepare();
      const from = engine.status().commit + 1;
      const lastIndex = told.at(-1)?.index ?? 0;
      const promise = { kind: "promise", epoch, asked: epoch, pre: false, granted: true, commit: 0 } as const;
      const all = [...effects, ...receive("B", { ...promise, from, lastIndex, entries: told })];
      const match = engine.status().lastIndex;
      if (choose) all.push(...receive("B", { kind: "accepted", epoch, match, voting: true }));
      return all;
    },
    propose(...payloads) {
      return run({ kind: "propose", proposals: payloads.map((text, ticket) => ({ ticket, payload: bytesOf(text) })) });
    },
  };
}

export function effectsOf<K extends PaxosEffect["kind"]>(effects: readonly PaxosEffect[], kind: K): EffectOf<K>[] {
  return effects.filter((effect): effect is EffectOf<K> => effect.kind === kind);
}

/** Messages of a kind among the sends, in order. */
export function messagesOf<K extends PaxosMessage["kind"]>(effects: readonly PaxosEffect[], kind: K): MessageOf<K>[] {
  return effectsOf(effects, "send")
    .map((send) => send.message)
    .filter((message): message is MessageOf<K> => message.kind === kind);
}
