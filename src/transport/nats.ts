/**
 * Owns the real transport: core NATS through the `nats` client.
 *
 * The client's defaults suit long-lived services, not consensus: a hung server would go unnoticed for six minutes and
 * ten failed dials would end the connection for good. So: redial every 50 ms for ever, ping twice a second, give a dial
 * half a second. While disconnected nothing is queued: a message that is minutes old must not be flushed late.
 */
import {
  type NatsConnection,
  NatsError,
  ErrorCode as NatsErrorCode,
  connect,
  createInbox,
  nkeyAuthenticator,
} from "nats";
import { ShardpactError } from "../model/errors.ts";
import type { Message, Refusal, StatusListener, Subscription, Transport } from "./port.ts";
import { type Requests, createRequests } from "./requests.ts";

const DIAL_TIMEOUT_MS = 500;
const RECONNECT_WAIT_MS = 50;
const PING_INTERVAL_MS = 500;
const PINGS_OUT_MAX = 2;
const CLOSE_FLUSH_MS = 250;
const NO_RESPONDERS = 503;
/** Refused subjects that are told, each once a connection: a replica uses a handful. */
const REFUSALS_MAX = 64;

export interface NatsOptions {
  /** URLs, any of one cluster; the client learns of the others. */
  readonly servers: readonly string[];
  /** Shown in the server's connection list. */
  readonly name: string;
  /** NKey seed to authenticate with; absent for a server without authentication. */
  readonly seed?: string;
  /** How long to try before the first connection stands. */
  readonly timeoutMs: number;
  readonly signal?: AbortSignal;
}

/** Connects, or fails by the deadline. The caller closes. @throws ShardpactError `unavailable`, `unauthorized`, `aborted`, `config_invalid` */
export async function connectNats(options: NatsOptions): Promise<Transport> {
  const deadline = performance.now() + options.timeoutMs;
  for (;;) {
    options.signal?.throwIfAborted();
    try {
      return wrap(await dial(options));
    } catch (cause) {
      const failure = connectError(options, cause);
      if (failure.code !== "unavailable" || performance.now() + RECONNECT_WAIT_MS >= deadline) throw failure;
    }
    await new Promise((resolve) => setTimeout(resolve, RECONNECT_WAIT_MS));
  }
}

function dial(options: NatsOptions): Promise<NatsConnection> {
  return connect({
    servers: [...options.servers],
    name: options.name,
    timeout: Math.min(DIAL_TIMEOUT_MS, options.timeoutMs),
    reconnectTimeWait: RECONNECT_WAIT_MS,
    reconnectJitter: RECONNECT_WAIT_MS,
    maxReconnectAttempts: -1,
    pingInterval: PING_INTERVAL_MS,
    maxPingOut: PINGS_OUT_MAX,
    // A server that is being reconfigured refuses for a moment; giving up for good would be worse than asking again.
    ignoreAuthErrorAbort: true,
    ...(options.seed === undefined ? {} : { authenticator: nkeyAuthenticator(new TextEncoder().encode(options.seed)) }),
  });
}

function connectError({ servers, signal }: NatsOptions, cause: unknown): ShardpactError {
  const where = servers.join(", ");
  if (signal?.aborted) return new ShardpactError("aborted", `connecting to NATS at ${where} was aborted`, { cause });
  const code = cause instanceof NatsError ? cause.code : "";
  if (code === NatsErrorCode.AuthorizationViolation || code === NatsErrorCode.AuthenticationExpired) {
    return new ShardpactError("unauthorized", `the NATS server at ${where} refuses this key`, {
      cause,
      hint: "Add the replica's public NKey to the server's configuration.",
    });
  }
  if (cause instanceof TypeError) {
    return new ShardpactError("config_invalid", `'${where}' is not a NATS address`, { cause });
  }
  return new ShardpactError("unavailable", `no NATS server answers at ${where}`, {
    cause,
    hint: "Start nats-server, or check the address.",
  });
}

function wrap(nc: NatsConnection): Transport {
  const prefix = createInbox();
  const listeners = new Set<StatusListener>();
  /** By operation and subject; forgotten with the connection. */
  const refusals = new Map<string, Refusal>();
  let connected = true;
  let closing: Promise<void> | null = null;

  const requests: Requests = createRequests({
    prefix,
    connected: () => connected,
    publish: (subject, data, reply) => publish(subject, data, reply),
    after: (ms, fn) => {
      const timer = setTimeout(fn, ms);
      return () => clearTimeout(timer);
    },
  });
  nc.subscribe(`${prefix}.*`, {
    callback: (error, m) => {
      if (error) return;
      requests.answered(m.subject, m.headers?.code === NO_RESPONDERS ? null : new Uint8Array(m.data));
    },
  });

  function setConnected(now: boolean): void {
    if (connected === now) return;
    connected = now;
    refusals.clear();
    if (!now) requests.failAll(closing ? "closed" : "unavailable");
    for (const listener of listeners) listener(now, null);
  }

  function refused(refusal: Refusal): void {
    const key = `${refusal.operation} ${refusal.subject}`;
    if (refusals.has(key) || refusals.size >= REFUSALS_MAX) return;
    refusals.set(key, refusal);
    for (const listener of listeners) listener(connected, refusal);
  }
  watch(nc, setConnected, refused);

  function publish(subject: string, data: Uint8Array, reply?: string): void {
    if (closing) throw new ShardpactError("closed", `the connection is closed; '${subject}' was not sent`);
    if (!connected) return;
    const bytesMax = nc.info?.max_payload ?? 0;
    if (data.byteLength > bytesMax) {
      throw new ShardpactError(
        "limit_exceeded",
        `'${subject}' takes ${data.byteLength} bytes; the server takes ${bytesMax}`,
      );
    }
    nc.publish(subject, data, reply === undefined ? undefined : { reply });
  }

  async function close(): Promise<void> {
    closing ??= (async () => {
      if (connected) await within(nc.flush(), CLOSE_FLUSH_MS).catch(() => undefined);
      setConnected(false);
      listeners.clear();
      await nc.close();
    })();
    return closing;
  }

  return {
    get connected() {
      return connected;
    },
    get payloadBytesMax() {
      return nc.info?.max_payload ?? 0;
    },
    publish,
    subscribe(subject, handler) {
      if (closing) throw new ShardpactError("closed", `the connection is closed; '${subject}' is not listened to`);
      return subscribeTo(nc, subject, handler);
    },
    inbox: createInbox,
    request: async (subject, data, options) => {
      if (closing) throw new ShardpactError("closed", `the connection is closed; '${subject}' was not sent`);
      return requests.request(subject, data, options);
    },
    onStatus(listener) {
      listeners.add(listener);
      listener(connected, null);
      for (const refusal of refusals.values()) listener(connected, refusal);
      return () => listeners.delete(listener);
    },
    async flush(timeoutMs) {
      if (!connected) throw new ShardpactError("unavailable", "not connected to NATS");
      await within(nc.flush(), timeoutMs);
    },
    close,
    [Symbol.asyncDispose]: close,
  };
}

/** Follows the client's status events until it is closed. */
function watch(
  nc: NatsConnection,
  setConnected: (connected: boolean) => void,
  refused: (refusal: Refusal) => void,
): void {
  void (async () => {
    for await (const { type, permissionContext } of nc.status()) {
      if (type === "disconnect") setConnected(false);
      else if (type === "reconnect") setConnected(true);
      else if (permissionContext) {
        const operation = permissionContext.operation === "publish" ? "publish" : "subscribe";
        refused({ operation, subject: permissionContext.subject });
      }
    }
  })();
  void nc.closed().then(() => setConnected(false));
}

function subscribeTo(nc: NatsConnection, subject: string, handler: (message: Message) => void): Subscription {
  const inner = nc.subscribe(subject, {
    callback: (error, m) => {
      if (error) return;
      // m.data is a view into a socket chunk of 64 KiB or more: a copy keeps the chunk free and the bytes aligned.
      handler({ subject: m.subject, data: new Uint8Array(m.data), reply: m.reply ?? null });
    },
  });
  return {
    subject,
    close: () => {
      if (!nc.isClosed()) inner.unsubscribe();
    },
  };
}

async function within(work: Promise<void>, timeoutMs: number): Promise<void> {
  let timer: NodeJS.Timeout | undefined;
  const late = new Promise<never>((_resolve, reject) => {
    timer = setTimeout(
      () => reject(new ShardpactError("timeout", `no answer from NATS within ${timeoutMs} ms`)),
      timeoutMs,
    );
  });
  try {
    await Promise.race([work, late]);
  } catch (cause) {
    if (cause instanceof ShardpactError) throw cause;
    throw new ShardpactError("unavailable", "the connection to NATS was lost", { cause });
  } finally {
    clearTimeout(timer);
  }
}
