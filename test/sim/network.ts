/**
 * Owns the simulated network: the memory bus under a seed, one connection per process, and messages that are late.
 *
 * Besides what the bus does (drop, duplicate, delay, cut), a message may be sent again by a relay of the same name much
 * later: that is what a buffer does that is flushed after a reconnect, and it reaches whoever listens by then.
 */
import { type BusFaults, createMemoryBus, type MemoryBus } from "../../src/transport/memory.ts";
import type { Transport } from "../../src/transport/port.ts";
import type { SimProcess } from "./process.ts";
import { between, chance, type Random, type Scheduler } from "./scheduler.ts";

const FAST_MS: readonly [number, number] = [0.1, 2];
const TAIL_MS: readonly [number, number] = [5, 400];
const LATE_MS: readonly [number, number] = [200, 8_000];
/** What a flush after a reconnect brings back of each sender. */
const FLUSHED_MAX = 64;

export interface NetworkFaults {
  drop: number;
  duplicate: number;
  /** Share of messages in the long tail of delays: it reorders. */
  tail: number;
  /** Share of messages that are sent once more, much later. */
  late: number;
}

interface Sent {
  readonly subject: string;
  readonly data: Uint8Array;
  readonly reply: string | undefined;
}

export interface NetworkCounts {
  sent: number;
  dropped: number;
  late: number;
}

export interface Network {
  readonly bus: MemoryBus;
  readonly faults: NetworkFaults;
  readonly counts: NetworkCounts;
  connect(process: SimProcess): Transport;
  /** All connections are lost, and back after `ms`; with `flush`, the last messages of each sender come again. */
  restart(names: readonly string[], ms: number, flush: boolean): void;
  /** Keeps the first messages that this sender sends from now on, for `echo`. */
  remember(name: string): void;
  /** What was remembered of a sender arrives once more. */
  echo(name: string): void;
  /** Every message on this way takes `ms` longer, until `heal`. */
  clog(from: string, to: string, ms: number): void;
  heal(): void;
}

/** Sees every message that a process publishes, at the moment at which it leaves. */
export type Tap = (from: string, subject: string, data: Uint8Array) => void;

export function createNetwork(scheduler: Scheduler, random: Random, tap: Tap): Network {
  const faults: NetworkFaults = { drop: 0, duplicate: 0, tail: 0, late: 0 };
  const counts: NetworkCounts = { sent: 0, dropped: 0, late: 0 };
  const clogs = new Map<string, number>();
  const relays = new Map<string, Transport>();
  const lastSent = new Map<string, Sent[]>();
  const remembered = new Map<string, Sent[]>();
  const bus = createMemoryBus({ clock: { after: scheduler.after } });

  const delayMs = (): number => {
    const [min, max] = chance(random, faults.tail) ? TAIL_MS : FAST_MS;
    return between(random, min, max);
  };
  const busFaults: BusFaults = {
    deliver(from, to) {
      counts.sent += 1;
      if (chance(random, faults.drop)) {
        counts.dropped += 1;
        return [];
      }
      const clogMs = clogs.get(`${from}>${to}`) ?? 0;
      const delays = [delayMs() + clogMs];
      if (chance(random, faults.duplicate)) delays.push(delayMs() + clogMs);
      return delays;
    },
  };
  bus.setFaults(busFaults);

  function relay(name: string): Transport {
    const known = relays.get(name);
    if (known) return known;
    const made = bus.connect(name);
    relays.set(name, made);
    return made;
  }

  function connect(process: SimProcess): Transport {
    const { name } = process;
    const inner = bus.connect(name);
    relay(name);
    const sent = lastSent.get(name) ?? [];
    lastSent.set(name, sent);
    const transport: Transport = {
      get connected() {
        return inner.connected;
      },
      payloadBytesMax: inner.payloadBytesMax,
      publish(subject, data, reply) {
        if (!process.alive()) return;
        tap(name, subject, data);
        scheduler.note(`${name} ${subject} ${data.byteLength}`);
        inner.publish(subject, data, reply);
        if (!inner.connected) return;
        const message = { subject, data, reply };
        sent.push(message);
        if (sent.length > FLUSHED_MAX) sent.shift();
        const kept = remembered.get(name);
        if (kept && kept.length < FLUSHED_MAX) kept.push(message);
        if (!chance(random, faults.late)) return;
        counts.late += 1;
        scheduler.after(between(random, ...LATE_MS), () => relay(name).publish(subject, data, reply));
      },
      subscribe: (subject, handler) => inner.subscribe(subject, (message) => process.deliver(() => handler(message))),
      inbox: () => inner.inbox(),
      request: (subject, data, options) => process.gate(inner.request(subject, data, options)),
      onStatus: (listener) => inner.onStatus((...said) => process.deliver(() => listener(...said))),
      flush: (...wait) => inner.flush(...wait),
      close: () => inner.close(),
      [Symbol.asyncDispose]: () => inner.close(),
    };
    return transport;
  }

  return {
    bus,
    faults,
    counts,
    connect,
    restart(names, ms, flush) {
      for (const name of names) bus.setConnected(name, false);
      scheduler.after(ms, () => {
        for (const name of names) bus.setConnected(name, true);
        if (!flush) return;
        for (const name of names) {
          for (const { subject, data, reply } of lastSent.get(name) ?? []) relay(name).publish(subject, data, reply);
        }
      });
    },
    remember: (name) => void remembered.set(name, []),
    echo(name) {
      for (const { subject, data, reply } of remembered.get(name) ?? []) relay(name).publish(subject, data, reply);
      remembered.delete(name);
    },
    clog: (from, to, ms) => void clogs.set(`${from}>${to}`, ms),
    heal() {
      bus.heal();
      clogs.clear();
      Object.assign(faults, { drop: 0, duplicate: 0, tail: 0, late: 0 });
    },
  };
}
