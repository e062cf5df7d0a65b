/**
 * Owns the faults: what goes wrong, when, and when it ends. Drawn from the seed; bounded so that a correct group can
 * recover: damage never reaches a majority.
 */
import {
  damageMemoryPromises,
  damageMemoryRecord,
  type MemoryDisk,
  type MemoryRecord,
} from "../../src/storage/memory/disk.ts";
import type { Cluster, Member } from "./cluster.ts";
import { echo, leftBehind, type Stage, staleLeader, untold } from "./nemesis-scripts.ts";
import { below, between, chance, pick, type Random, type Scheduler } from "./scheduler.ts";

export type Fault =
  | "crash"
  | "power_loss"
  | "stop"
  | "twin"
  | "pause"
  | "stale_leader"
  | "untold"
  | "echo"
  | "left_behind"
  | "database_crash"
  | "database_disconnect"
  | "database_slow"
  | "database_hung"
  | "database_full"
  | "commit_unknown"
  | "damage"
  | "file_damage"
  | "isolate"
  | "split"
  | "one_way"
  | "bridge"
  | "clog"
  | "nats_restart"
  | "nats_disconnect"
  | "weather"
  | "clock_jump"
  | "clock_drift";

export interface Nemesis {
  readonly counts: Readonly<Record<Fault, number>>;
  stop(): void;
  /** Ends every fault; starts what does not run. */
  heal(): void;
}

export interface NemesisOptions {
  readonly scheduler: Scheduler;
  readonly random: Random;
  readonly cluster: Cluster;
  readonly clientNames: readonly string[];
  /** Only these, instead of those that the seed draws. */
  readonly focus?: readonly Fault[] | undefined;
}

/** Of damage that takes the record of epoch and vote. */
const PROMISES_SHARE = 0.1;
const EVERY_MS: readonly [number, number] = [100, 1_600];

export function startNemesis(options: NemesisOptions): Nemesis {
  const { scheduler, random, cluster } = options;
  const { network, ids, members, checker } = cluster;
  /** Members and clients. */
  const everybody = (): readonly string[] => [...ids, ...options.clientNames];
  let stopped = false;
  let echoes = false;

  const memberOf = (id: string): Member => members.get(id) as Member;
  /** Often the leader: what happens to it matters most. */
  const victim = (): string => (chance(random, 0.5) ? cluster.leader()?.id : undefined) ?? pick(random, ids);
  const soon = (min: number, max: number, fn: () => void): void => void scheduler.after(between(random, min, max), fn);
  const startIfDown = (id: string): void => {
    if (memberOf(id).process === null) cluster.start(id);
  };

  function crash(id: string, downMs: readonly [number, number] = [20, 2_500]): void {
    cluster.kill(id);
    soon(...downMs, () => startIfDown(id));
  }

  const stage: Stage = { scheduler, random, cluster, crash };

  function cutBoth(a: string, b: string): void {
    network.bus.cut(a, b);
    network.bus.cut(b, a);
  }

  function endCuts(): void {
    soon(300, 4_000, () => network.bus.heal());
  }

  function damage(): void {
    const id = pick(random, ids);
    const member = memberOf(id);
    const { disk } = member.database;
    if (!checker.healthy(id) || !checker.tolerates(id) || disk.log.size < 2) return;
    const isForGood = chance(random, PROMISES_SHARE);
    checker.damaged(id, isForGood);
    cluster.kill(id);
    if (isForGood) damageMemoryPromises(disk);
    else damageRecord(random, disk);
    soon(20, 1_000, () => startIfDown(id));
  }

  const faults: Record<Fault, () => void> = {
    crash: () => crash(victim()),
    power_loss() {
      for (const id of ids) {
        memberOf(id).database.crash(between(random, 50, 500));
        crash(id, [50, 1_500]);
      }
    },
    stop: () => cluster.stop(victim()),
    twin: () => cluster.start(victim()),
    pause: () => memberOf(victim()).process?.pause(between(random, 100, 5_000)),
    stale_leader: () => staleLeader(stage),
    untold: () => untold(stage),
    echo() {
      if (echoes) return;
      echoes = true;
      echo(stage, () => (echoes = false));
    },
    left_behind: () => leftBehind(stage),
    database_crash: () => memberOf(victim()).database.crash(between(random, 50, 1_500)),
    database_disconnect: () => memberOf(victim()).database.disconnect(),
    database_slow() {
      const { faults: database } = memberOf(victim()).database;
      database.slowness = between(random, 5, 100);
      soon(200, 4_000, () => (database.slowness = 1));
    },
    database_hung() {
      memberOf(victim()).database.faults.hungUntilMs = scheduler.nowMs() + between(random, 200, 5_000);
    },
    database_full() {
      memberOf(victim()).database.faults.fullUntilMs = scheduler.nowMs() + between(random, 200, 3_000);
    },
    commit_unknown() {
      const { faults: database } = memberOf(victim()).database;
      database.commitUnknown = between(random, 0.05, 0.5);
      soon(200, 3_000, () => (database.commitUnknown = 0));
    },
    damage,
    file_damage: () => void damageFiles(random, memberOf(pick(random, ids))),
    isolate() {
      const id = victim();
      // From its peers only, or from clients too.
      for (const other of chance(random, 0.5) ? ids : everybody()) if (other !== id) cutBoth(id, other);
      endCuts();
    },
    split() {
      const all = everybody();
      const left = all.filter(() => chance(random, 0.5));
      for (const a of left) for (const b of all) if (!left.includes(b)) cutBoth(a, b);
      endCuts();
    },
    one_way() {
      const id = victim();
      const inward = chance(random, 0.5);
      for (const other of ids) {
        if (other !== id) network.bus.cut(inward ? other : id, inward ? id : other);
      }
      endCuts();
    },
    bridge() {
      const middle = pick(random, ids);
      const rest = ids.filter((id) => id !== middle);
      const left = rest.slice(0, rest.length >> 1);
      for (const a of left) for (const b of rest) if (!left.includes(b)) cutBoth(a, b);
      endCuts();
    },
    clog: () => network.clog(pick(random, everybody()), pick(random, everybody()), between(random, 50, 2_000)),
    nats_restart: () => network.restart(everybody(), between(random, 50, 1_500), chance(random, 0.5)),
    nats_disconnect: () =>
      network.restart([pick(random, everybody())], between(random, 50, 6_000), chance(random, 0.5)),
    weather() {
      const bad = chance(random, 0.7);
      network.faults.drop = bad ? between(random, 0, 0.2) : 0;
      network.faults.duplicate = bad ? between(random, 0, 0.2) : 0;
      network.faults.tail = bad ? between(random, 0, 0.3) : 0.01;
      network.faults.late = bad ? between(random, 0, 0.1) : 0;
    },
    clock_jump() {
      memberOf(victim()).clock.offsetMs += between(random, -20_000, 20_000);
    },
    clock_drift() {
      memberOf(victim()).clock.rate = between(random, 0.9, 1.1);
    },
  };
  const names = Object.keys(faults) as Fault[];
  const counts = Object.fromEntries(names.map((name) => [name, 0])) as Record<Fault, number>;
  // Each seed has a weather of its own: half of the kinds of faults, some of them often.
  const drawn = names
    .filter(() => chance(random, 0.5))
    .flatMap((name) => Array<Fault>(1 + below(random, 3)).fill(name));
  const kinds = options.focus ?? drawn;
  const pace = between(random, 0.5, 2);

  function next(): void {
    scheduler.after(between(random, ...EVERY_MS) * pace, () => {
      if (stopped) return;
      const fault = kinds.length === 0 ? pick(random, names) : pick(random, kinds);
      counts[fault] += 1;
      scheduler.note(fault);
      faults[fault]();
      next();
    });
  }
  next();

  return {
    counts,
    stop() {
      stopped = true;
    },
    heal() {
      network.heal();
      network.restart(everybody(), 0, false);
      for (const { id, database, process, clock } of members.values()) {
        database.heal();
        clock.offsetMs = 0;
        process?.resume();
        startIfDown(id);
      }
    },
  };
}

/**
 * One record of the log at rest: a bit flips, it is lost, it is torn (a part of it was never written), or it was written
 * to another record's place.
 */
function damageRecord(random: Random, disk: MemoryDisk): void {
  const { log } = disk;
  const index = pick(random, [...log.keys()]);
  const { entry, checksum } = log.get(index) as MemoryRecord;
  switch (pick(random, ["flipped", "lost", "torn", "misdirected"] as const)) {
    case "flipped":
      return damageMemoryRecord(disk, index);
    case "lost":
      return void log.delete(index);
    case "torn": {
      const payload = entry.payload.slice(0, entry.payload.byteLength >> 1);
      if (payload.byteLength === entry.payload.byteLength) return void log.delete(index);
      return void log.set(index, { entry: { ...entry, payload }, checksum });
    }
    case "misdirected": {
      const other = pick(random, [...log.values()]);
      if (other.entry.index === index) return void log.delete(index);
      // Its columns say `index`; payload and checksum are the other's.
      return void log.set(index, { entry: { ...other.entry, index }, checksum: other.checksum });
    }
  }
}

/** One bit of every snapshot on its way through this machine flips. */
async function damageFiles(random: Random, { id, files }: Member): Promise<void> {
  const dice = random();
  for (const name of await files.list(`/${id}`)) {
    const file = await files.open(`/${id}/${name}`, "r");
    const at = Math.floor(dice * (await file.size()));
    const byte = new Uint8Array(1);
    if ((await file.read(byte, at)) === 0) continue;
    byte[0] = (byte[0] ?? 0) ^ (1 << (at % 8));
    await file.write(byte, at);
  }
}
