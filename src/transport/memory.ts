/**
 * Owns the in-process transport: a bus that many connections share, with faults that a test or simulator decides.
 *
 * Every delivery asks `faults.deliver` for a list of delays: none drops the message, two duplicate it, unequal ones
 * reorder. Time and order come from the injected clock, so that a seed decides everything.
 */
import { ShardpactError } from "../model/errors.ts";
import type { Message, StatusListener, Subscription, Transport } from "./port.ts";
import { createRequests } from "./requests.ts";
import { subjectMatches } from "./subjects.ts";

const PAYLOAD_BYTES_MAX = 1024 * 1024;

export interface BusClock {
  /** Calls `fn` once after `ms`, equal times in the order of the calls; returns a canceller. */
  after(ms: number, fn: () => void): () => void;
}

export interface BusFaults {
  /** Delays in ms after which copies of a message arrive. */
  deliver(from: string, to: string, subject: string): readonly number[];
}

export interface MemoryBus {
  connect(name: string): Transport;
  /** From now on these decide over every delivery; null: perfect links. */
  setFaults(faults: BusFaults | null): void;
  /** Nothing passes between the two any more, in this direction. */
  cut(from: string, to: string): void;
  heal(): void;
  /** The connection loses its server, or finds it again. */
  setConnected(name: string, connected: boolean): void;
}

interface Subscribed {
  readonly subject: string;
  /** The subject up to its first wildcard: most messages are somebody else's, which this tells at once. */
  readonly start: string;
  readonly handler: (message: Message) => void;
}

interface Connection {
  readonly name: string;
  up: boolean;
  closed: boolean;
  readonly subscriptions: Set<Subscribed>;
  setUp(up: boolean): void;
  noResponders(replySubject: string): void;
}

const REAL_CLOCK: BusClock = {
  after(ms, fn) {
    if (ms === 0) {
      const immediate = setImmediate(fn);
      return () => clearImmediate(immediate);
    }
    const timer = setTimeout(fn, ms);
    return () => clearTimeout(timer);
  },
};
const NO_DELAY: readonly number[] = [0];

export function createMemoryBus(options: { readonly clock?: BusClock } = {}): MemoryBus {
  const clock = options.clock ?? REAL_CLOCK;
  const connections = new Set<Connection>();
  const cuts = new Set<string>();
  let faults: BusFaults | null = null;
  let connectionCount = 0;

  function route(from: Connection, message: Message): void {
    let listeners = 0;
    for (const to of connections) {
      for (const subscription of to.subscriptions) {
        if (!to.up || !message.subject.startsWith(subscription.start)) continue;
        if (!subjectMatches(subscription.subject, message.subject)) continue;
        listeners += 1;
        if (cuts.has(`${from.name}>${to.name}`)) continue;
        for (const ms of faults?.deliver(from.name, to.name, message.subject) ?? NO_DELAY) {
          const copy = { ...message, data: new Uint8Array(message.data) };
          clock.after(ms, () => {
            if (to.up && to.subscriptions.has(subscription)) subscription.handler(copy);
          });
        }
      }
    }
    const { reply } = message;
    if (listeners === 0 && reply !== null) clock.after(0, () => from.noResponders(reply));
  }

  return {
    connect: (name) => connectTo({ name, number: (connectionCount += 1), clock, connections, route }),
    setFaults(next) {
      faults = next;
    },
    cut: (from, to) => void cuts.add(`${from}>${to}`),
    heal: () => cuts.clear(),
    setConnected(name, up) {
      for (const connection of connections) if (connection.name === name) connection.setUp(up);
    },
  };
}

interface ConnectArguments {
  readonly name: string;
  /** Of this bus: a run of a simulator doesn't depend on the runs before it. */
  readonly number: number;
  readonly clock: BusClock;
  readonly connections: Set<Connection>;
  readonly route: (from: Connection, message: Message) => void;
}

function connectTo({ name, number, clock, connections, route }: ConnectArguments): Transport {
  const inboxRoot = `_INBOX.${name}-${number}`;
  let inboxCount = 0;
  const listeners = new Set<StatusListener>();

  const self: Connection = {
    name,
    up: true,
    closed: false,
    subscriptions: new Set(),
    setUp(up) {
      if (self.closed || self.up === up) return;
      self.up = up;
      if (!up) requests.failAll("unavailable");
      for (const listener of listeners) listener(up, null);
    },
    noResponders: (reply) => requests.answered(reply, null),
  };
  const requests = createRequests({
    prefix: `${inboxRoot}.r`,
    connected: () => self.up,
    publish: (subject, data, reply) => publish(subject, data, reply),
    after: clock.after,
  });
  self.subscriptions.add(subscribed(`${inboxRoot}.r.*`, (message) => requests.answered(message.subject, message.data)));
  connections.add(self);

  function alive(subject: string): void {
    if (self.closed) throw new ShardpactError("closed", `the connection is closed; '${subject}' was not used`);
  }

  function publish(subject: string, data: Uint8Array, reply?: string): void {
    alive(subject);
    if (!self.up) return;
    if (data.byteLength > PAYLOAD_BYTES_MAX) {
      throw new ShardpactError(
        "limit_exceeded",
        `'${subject}' takes ${data.byteLength} bytes; the bus takes ${PAYLOAD_BYTES_MAX}`,
      );
    }
    route(self, { subject, data, reply: reply ?? null });
  }

  function subscribe(subject: string, handler: (message: Message) => void): Subscription {
    alive(subject);
    const subscription = subscribed(subject, handler);
    self.subscriptions.add(subscription);
    return { subject, close: () => void self.subscriptions.delete(subscription) };
  }

  async function close(): Promise<void> {
    if (self.closed) return;
    self.closed = true;
    self.up = false;
    self.subscriptions.clear();
    connections.delete(self);
    requests.failAll("closed");
    for (const listener of listeners) listener(false, null);
    listeners.clear();
  }

  return {
    get connected() {
      return self.up;
    },
    payloadBytesMax: PAYLOAD_BYTES_MAX,
    publish,
    subscribe,
    inbox: () => `${inboxRoot}.i${(inboxCount += 1)}`,
    request: async (subject, data, options) => {
      alive(subject);
      return requests.request(subject, data, options);
    },
    onStatus(listener) {
      listeners.add(listener);
      listener(self.up, null);
      return () => listeners.delete(listener);
    },
    async flush() {
      if (!self.up) throw new ShardpactError("unavailable", "not connected to the bus");
    },
    close,
    [Symbol.asyncDispose]: close,
  };
}

function subscribed(subject: string, handler: (message: Message) => void): Subscribed {
  return { subject, start: subject.split(/[*>]/, 1)[0] ?? "", handler };
}
