/**
 * Owns running an engine's effects literally, in order (`consensus/engine.ts`, E1–E6), and holding back what promises
 * durability until the write that it promises is durable.
 */
import type { Effect, LogIndex, ReplicaId } from "../consensus/engine.ts";
import type { PersistEffect } from "./persist-queue.ts";

type EffectOf<M, K extends Effect<M>["kind"]> = Extract<Effect<M>, { kind: K }>;

/** Where each effect goes. */
export interface EffectPorts<M> {
  persist(effect: PersistEffect): void;
  send(to: ReplicaId, message: M): void;
  load(effect: EffectOf<M, "load">): void;
  commit(index: LogIndex): void;
  accepted(effect: EffectOf<M, "accepted">): void;
  rejected(effect: EffectOf<M, "rejected">): void;
  sendSnapshot(to: ReplicaId, indexMin: LogIndex): void;
  status(effect: EffectOf<M, "status">): void;
  readReady(effect: EffectOf<M, "read_ready">): void;
  readFailed(effect: EffectOf<M, "read_failed">): void;
  removed(index: LogIndex): void;
  halt(reason: string): void;
}

export interface EffectRunner<M> {
  run(effects: readonly Effect<M>[]): void;
  /** Everything up to `token` is durable: what waited for it leaves, in order. */
  release(token: number): void;
}

export function createEffectRunner<M>(ports: EffectPorts<M>): EffectRunner<M> {
  /** Bounded by the engine: it has a bounded number of writes outstanding, with a bounded number of replies each. */
  let gated: { readonly to: ReplicaId; readonly message: M; readonly afterToken: number }[] = [];
  let durableToken = 0;

  function runOne(effect: Effect<M>): void {
    switch (effect.kind) {
      case "persist":
        return ports.persist(effect);
      case "send":
        if (effect.afterToken === null || effect.afterToken <= durableToken) ports.send(effect.to, effect.message);
        else gated.push({ to: effect.to, message: effect.message, afterToken: effect.afterToken });
        return;
      case "load":
        return ports.load(effect);
      case "commit":
        return ports.commit(effect.index);
      case "accepted":
        return ports.accepted(effect);
      case "rejected":
        return ports.rejected(effect);
      case "send_snapshot":
        return ports.sendSnapshot(effect.to, effect.indexMin);
      case "status":
        return ports.status(effect);
      case "removed":
        return ports.removed(effect.index);
      case "halt":
        return ports.halt(effect.reason);
      case "read_ready":
        return ports.readReady(effect);
      case "read_failed":
        return ports.readFailed(effect);
    }
  }

  return {
    run(effects) {
      for (const effect of effects) runOne(effect);
    },
    release(token) {
      durableToken = token;
      const waiting = gated;
      gated = waiting.filter((message) => message.afterToken > token);
      for (const message of waiting) if (message.afterToken <= token) ports.send(message.to, message.message);
    },
  };
}
