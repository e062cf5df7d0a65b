/**
 * Owns one simulated database per replica: the in-memory stores behind a connection that takes time and fails.
 *
 * A call travels, runs at one moment on the disk, and its answer travels back. A lost connection loses answers; a COMMIT
 * that was on its way may still run later (its boot fences it). A crash of the server takes all applies since the last
 * append. What the disk holds survives everything but damage.
 */
import type { AppliedEntry, AppliedState } from "../../src/catalog/apply.ts";
import type { Entry } from "../../src/consensus/engine.ts";
import { ShardpactError } from "../../src/model/errors.ts";
import { crashMemoryDisk, createMemoryDisk, type MemoryDisk } from "../../src/storage/memory/disk.ts";
import { openMemoryStores } from "../../src/storage/memory/open.ts";
import type {
  CatalogStore,
  LogStore,
  LogWrite,
  ReplicaStores,
  SnapshotInstalled,
  StoreIdentity,
} from "../../src/storage/port.ts";
import type { Checker } from "./checker-port.ts";
import type { SimProcess } from "./process.ts";
import { between, below, chance, type Random, type Scheduler } from "./scheduler.ts";

const FAST_MS: readonly [number, number] = [0.1, 2];
const SPIKE_MS: readonly [number, number] = [5, 120];

export interface DatabaseFaults {
  /** Every call takes this many times as long. */
  slowness: number;
  /** Share of calls that take much longer. */
  spikes: number;
  hungUntilMs: number;
  fullUntilMs: number;
  /** Share of writes whose outcome the caller never learns. */
  commitUnknown: number;
}

export interface Database {
  readonly disk: MemoryDisk;
  readonly faults: DatabaseFaults;
  open(process: SimProcess): ReplicaStores;
  /** All connections are lost; what was on its way may still be committed. */
  disconnect(): void;
  /** The server dies, loses its unflushed applies, and is back after `ms`. */
  crash(ms: number): void;
  /** How often it died. */
  crashes(): number;
  heal(): void;
}

/** One connection: from a boot to its loss. */
interface Connection {
  readonly stores: ReplicaStores;
  lost: "no" | "disconnected" | "crashed";
  readonly open: Set<() => void>;
}

export interface DatabaseOptions {
  readonly identity: StoreIdentity;
  readonly scheduler: Scheduler;
  readonly random: Random;
  readonly checker: Checker;
}

interface Applied {
  readonly applied: readonly AppliedEntry[];
  readonly state: AppliedState;
}

type Kind = "read" | "write";
const READS: ReadonlySet<string> = new Set(["read", "query", "outcome", "chainAt", "exportSnapshot"]);

export function createDatabase({ identity, scheduler, random, checker }: DatabaseOptions): Database {
  const { replica } = identity;
  const disk = createMemoryDisk(`${replica}-database`);
  const faults: DatabaseFaults = { slowness: 1, spikes: 0.01, hungUntilMs: 0, fullUntilMs: 0, commitUnknown: 0 };
  const connections = new Set<Connection>();
  let upAtMs = 0;
  let crashCount = 0;

  const unavailable = (why: string): ShardpactError =>
    new ShardpactError("unavailable", `replica ${replica}: ${why}; the outcome is unknown`);

  function travelMs(): number {
    const [min, max] = chance(random, faults.spikes) ? SPIKE_MS : FAST_MS;
    return (between(random, min, max) * faults.slowness) / 2;
  }

  function lose(connection: Connection, how: "disconnected" | "crashed"): void {
    if (connection.lost !== "no") return;
    connection.lost = how;
    connections.delete(connection);
    for (const fail of connection.open) fail();
    connection.open.clear();
  }

  function connect(): Connection {
    const connection: Connection = { stores: openMemoryStores(disk, identity), lost: "no", open: new Set() };
    connections.add(connection);
    return connection;
  }

  /** Runs `work` on the disk once the database answers. */
  function whenAnswering(connection: Connection, kind: Kind, work: () => void, refuse: (why: string) => void): void {
    const nowMs = scheduler.nowMs();
    if (nowMs < upAtMs) return refuse("the server is starting");
    if (nowMs < faults.hungUntilMs) {
      scheduler.after(faults.hungUntilMs - nowMs + between(random, 0, 5), () =>
        whenAnswering(connection, kind, work, refuse),
      );
      return;
    }
    if (connection.lost === "crashed") return;
    if (kind === "write" && nowMs < faults.fullUntilMs) return refuse("no space left on device");
    work();
  }

  function call<T>(
    process: SimProcess,
    connection: Connection,
    kind: Kind,
    work: (stores: ReplicaStores) => Promise<T>,
  ): Promise<T> {
    return new Promise((resolve, reject) => {
      const fail = (): void => {
        connection.open.delete(fail);
        scheduler.after(travelMs(), () => process.deliver(() => reject(unavailable("the connection is lost"))));
      };
      if (connection.lost !== "no") return fail();
      connection.open.add(fail);
      const run = (): void => {
        // The caller is gone or was told that it failed: whatever had reached the server by then still runs.
        const orphaned = connection.lost !== "no" || !process.alive();
        if (orphaned && (kind === "read" || chance(random, 0.5))) return;
        void work(connection.stores).then(
          (value) => answer(() => resolve(value)),
          (error: unknown) => answer(() => reject(error as Error)),
        );
      };
      const answer = (tell: () => void): void => {
        if (connection.lost !== "no") return;
        if (kind === "write" && chance(random, faults.commitUnknown)) return lose(connection, "disconnected");
        connection.open.delete(fail);
        scheduler.after(travelMs(), () => process.deliver(tell));
      };
      scheduler.after(travelMs(), () =>
        whenAnswering(connection, kind, run, () => {
          if (connection.lost === "no") lose(connection, "disconnected");
        }),
      );
    });
  }

  function open(process: SimProcess): ReplicaStores {
    let connection: Connection = { stores: openMemoryStores(disk, identity), lost: "disconnected", open: new Set() };
    /** What this process was told last: the disk may have gone back or on since. */
    let known: AppliedState = disk.applied;
    const close = async (): Promise<void> => lose(connection, "disconnected");
    /** Every method of a port, over the connection; `own` instead of what is there. */
    const remote = <S extends object>(of: (stores: ReplicaStores) => S, own: Partial<S>): S =>
      new Proxy(own as S, {
        get: (target, name) =>
          Reflect.get(target, name) ??
          ((...parameters: readonly unknown[]) =>
            call(process, connection, READS.has(String(name)) ? "read" : "write", async (stores) => {
              const method = Reflect.get(of(stores), name) as (...all: readonly unknown[]) => unknown;
              return method(...parameters);
            })),
      });
    const write = <T>(work: (stores: ReplicaStores) => Promise<T>): Promise<T> =>
      call(process, connection, "write", work);
    /** What may end damage. */
    const mending = <T>(work: (log: LogStore) => Promise<T>): Promise<T> =>
      write(async ({ log: store }) => {
        const result = await work(store);
        checker.lookAgain(replica, disk);
        return result;
      });
    const log = remote<LogStore>((stores) => stores.log, {
      boot: () => {
        lose(connection, "disconnected");
        connection = connect();
        return mending((store) => store.boot()).then((state) => {
          known = state.applied;
          return state;
        });
      },
      rebuild: (indexes) => mending((store) => store.rebuild(indexes)),
      mended: () => mending((store) => store.mended()),
      startOver: () =>
        mending(async (store) => {
          checker.startedOver(replica);
          await store.startOver();
        }).then(() => {
          known = disk.applied;
        }),
      loseVote: (reason) =>
        write(async ({ log: store }) => {
          await store.loseVote(reason);
          checker.lostVote(replica, reason);
        }),
      append: (writes) => write(({ log: store }) => append(store, writes)),
      compactTo: (index) =>
        write(async ({ log: store }) => {
          await store.compactTo(index);
          checker.compacted(replica, disk);
        }),
      close,
      [Symbol.asyncDispose]: close,
    });
    const catalog = remote<CatalogStore>((stores) => stores.catalog, {
      apply: (entries) =>
        write(({ catalog: store }) => apply(store, entries)).then(({ applied, state }) => {
          known = state;
          return applied;
        }),
      installSnapshot: (...snapshot) =>
        write(({ catalog: store }) => install(store, snapshot)).then((installed) => {
          known = disk.applied;
          return installed;
        }),
      applied: () => known,
      close,
      [Symbol.asyncDispose]: close,
    });
    return { log, catalog, close, [Symbol.asyncDispose]: close };
  }

  async function apply(store: CatalogStore, entries: readonly Entry[]): Promise<Applied> {
    const before = disk.applied.index;
    const applied = await store.apply(entries);
    checker.applied(replica, disk, before);
    return { applied, state: disk.applied };
  }

  async function install(
    store: CatalogStore,
    snapshot: Parameters<CatalogStore["installSnapshot"]>,
  ): Promise<SnapshotInstalled> {
    const before = disk.applied.index;
    const result = await store.installSnapshot(...snapshot);
    if (result.installed) checker.installed(replica, disk, before);
    return result;
  }

  async function append(store: LogStore, writes: readonly LogWrite[]): Promise<void> {
    const before = disk.state;
    const from = Math.min(
      ...writes.map(({ removeFrom, put }) => Math.min(removeFrom ?? Infinity, put[0]?.index ?? Infinity)),
    );
    const replaced: Entry[] = [];
    for (let index = from; index <= (before?.lastIndex ?? 0); index++) {
      const record = disk.log.get(index);
      if (record) replaced.push(record.entry);
    }
    await store.append(writes);
    checker.appended({ replica, disk, before, from, replaced });
  }

  return {
    disk,
    faults,
    open,
    disconnect() {
      for (const connection of connections) lose(connection, "disconnected");
    },
    crashes: () => crashCount,
    crash(ms) {
      crashCount += 1;
      for (const connection of connections) lose(connection, "crashed");
      crashMemoryDisk(disk, below(random, disk.unflushed.length + 1));
      checker.rolledBack(replica, disk);
      upAtMs = scheduler.nowMs() + ms;
    },
    heal() {
      Object.assign(faults, { slowness: 1, spikes: 0, hungUntilMs: 0, fullUntilMs: 0, commitUnknown: 0 });
    },
  };
}
