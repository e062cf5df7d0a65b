/**
 * Owns the one door to the engine: events enter one at a time, and all effects of one run before the next event.
 *
 * After the first failure nothing enters any more (E5).
 */
import type { Effect, Engine, EngineEvent, EngineStatus } from "../consensus/engine.ts";
import { type ShardpactError, isShardpactError, toShardpactError } from "../model/errors.ts";

export interface DriverEvents {
  /** Neither votes nor counts from now on. */
  nonVoting(reason: string): void;
  /** Votes again: what was damaged is mended. */
  mended(): void;
  /** The leader gave up by its own choice. */
  steppedDown(reason: string): void;
  /** It is over; the store is to be booted again. */
  failed(error: ShardpactError): void;
  /** It is over; nothing may follow. */
  halted(error: ShardpactError): void;
}

export interface Driver<M> {
  feed(event: EngineEvent<M>): void;
  status(): EngineStatus;
  over(): boolean;
  /** Ends without telling: the owner asked for it. */
  stop(): void;
  fail(error: unknown): void;
  halt(error: ShardpactError): void;
  /** The greeting is over: votes, unless there is a reason not to. */
  startVoting(): void;
  stopVoting(reason: string): void;
  /** What kept it from voting at the start is mended. Does nothing when it lost its vote since. */
  resumeVoting(): void;
  /** Does nothing unless this replica leads. */
  stepDown(reason: string): void;
}

export interface DriverOptions<M> {
  readonly engine: Engine<M>;
  readonly mayVote: boolean;
  readonly events: DriverEvents;
  run(effects: readonly Effect<M>[]): void;
}

export function createDriver<M>({ engine, events, ...options }: DriverOptions<M>): Driver<M> {
  let queue: EngineEvent<M>[] = [];
  let draining = false;
  let over = false;
  let { mayVote } = options;
  let greeted = false;
  let stopped = false;

  function end(error: ShardpactError, kind: "failed" | "halted"): void {
    if (over) return;
    over = true;
    events[kind](error);
  }

  function feed(event: EngineEvent<M>): void {
    if (over) return;
    queue.push(event);
    if (draining) return;
    draining = true;
    try {
      drain();
    } catch (error) {
      // The engine or the shell contradicts itself: nothing that follows could be trusted.
      end(toShardpactError(error), "halted");
    } finally {
      draining = false;
    }
  }

  function drain(): void {
    while (queue.length > 0 && !over) {
      const events = queue;
      queue = [];
      for (const event of events) {
        if (over) return;
        options.run(engine.step(event));
      }
    }
  }

  return {
    feed,
    status: () => engine.status(),
    over: () => over,
    stop() {
      over = true;
    },
    fail(error) {
      const known = toShardpactError(error);
      end(known, isForGood(known) ? "halted" : "failed");
    },
    halt: (error) => end(error, "halted"),
    startVoting() {
      greeted = true;
      if (mayVote) feed({ kind: "voting", allowed: true });
    },
    stopVoting(reason) {
      stopped = true;
      if (over || !mayVote) return;
      mayVote = false;
      feed({ kind: "voting", allowed: false });
      events.nonVoting(reason);
    },
    resumeVoting() {
      if (over || stopped || mayVote) return;
      mayVote = true;
      if (greeted) feed({ kind: "voting", allowed: true });
      events.mended();
    },
    stepDown(reason) {
      if (over || engine.status().role !== "leader") return;
      events.steppedDown(reason);
      feed({ kind: "step_down", reason });
    },
  };
}

/** What a fresh engine on the same log would meet again. */
function isForGood(error: ShardpactError): boolean {
  return isShardpactError(error, "upgrade_required") || isShardpactError(error, "config_invalid");
}
