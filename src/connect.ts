/**
 * Owns `connect()`: the library's own wiring of NATS, stores and client.
 */
import { createSession, type Notice, type Session } from "./client/session.ts";
import { discover } from "./client/discover.ts";
import { loadSettings, type SettingsOptions } from "./client/settings.ts";
import { REAL_TIMING, startDeadline } from "./client/timing.ts";
import { followConfigurations } from "./client/trust.ts";
import { createGroup, type Group } from "./dataset.ts";
import { ShardpactError } from "./model/errors.ts";
import { LIMITS } from "./model/limits.ts";
import { openStores, type Stores } from "./client/stores.ts";
import { connectNats } from "./transport/nats.ts";

export interface ConnectOptions extends SettingsOptions {
  /** For NATS and for finding the group, together. Default 10 s. */
  readonly timeoutMs?: number | undefined;
  readonly signal?: AbortSignal | undefined;
  /** Told of diverged replicas, unpinned references and the like. Default: `process.emitWarning`. */
  readonly onNotice?: ((notice: Notice) => void) | undefined;
}

/** A session with the stores that go with it. */
export interface Connection extends AsyncDisposable {
  readonly session: Session;
  readonly stores: Stores;
  close(): Promise<void>;
}

/**
 * Connects to the one group that answers, or to the one that is named.
 *
 * A string is one or more NATS URLs. Without options: SHARDPACT_URL, else ./shardpact.json, else nats://127.0.0.1:4222.
 * The caller closes the group.
 * @throws ShardpactError `unavailable`, `unauthorized`, `config_invalid`, `not_found`, `group_forked`, `aborted`
 */
export async function connect(o: string | ConnectOptions = {}): Promise<Group> {
  return createGroup(await openConnection(typeof o === "string" ? { url: o } : o));
}

/** What `connect` and the command line stand on. @throws as `connect` */
export async function openConnection(o: ConnectOptions): Promise<Connection> {
  const timeoutMs = o.timeoutMs ?? LIMITS.openTimeoutMs;
  const startMs = performance.now();
  const settings = await loadSettings(o);
  const signal = o.signal === undefined ? {} : { signal: o.signal };
  const transport = await connectNats({
    servers: settings.servers,
    name: `shardpact client of ${settings.actor}`,
    timeoutMs,
    ...signal,
    ...(settings.seed === null ? {} : { seed: settings.seed }),
  });
  try {
    const discovered = await discover(transport, REAL_TIMING, {
      timeoutMs: Math.max(100, timeoutMs - (performance.now() - startMs)),
      ...signal,
      ...(settings.group === null ? {} : { group: settings.group }),
      ...(settings.groupId === null ? {} : { groupId: settings.groupId }),
    });
    const onNotice = o.onNotice ?? warn;
    const session = createSession({ transport, timing: REAL_TIMING, discovered, actor: settings.actor, onNotice });
    if (discovered.newestConfiguration > 0) {
      const deadline = startDeadline(REAL_TIMING, Math.max(100, timeoutMs - (performance.now() - startMs)), o.signal);
      await followConfigurations(session, deadline, discovered.newestConfiguration);
    }
    const stores = openStores({
      configured: settings.stores,
      hints: discovered.stores,
      cache: settings.cache,
      onNotice,
      ...(settings.seed === null ? {} : { seed: settings.seed }),
    });
    let closing: Promise<void> | null = null;
    const close = () => (closing ??= closeAll(stores, transport));
    return { session, stores, close, [Symbol.asyncDispose]: close };
  } catch (error) {
    await transport.close();
    throw error;
  }
}

async function closeAll(...resources: readonly { close(): Promise<void> }[]): Promise<void> {
  const results = await Promise.allSettled(resources.map((r) => r.close()));
  const failed = results.find((r) => r.status === "rejected");
  if (failed) throw new ShardpactError("internal", "a connection did not close", { cause: failed.reason });
}

/** Node prints a warning on stderr, once per text is left to the caller's own listener. */
function warn(notice: Notice): void {
  process.emitWarning(notice.message, { type: "ShardpactNotice", code: notice.code });
}
