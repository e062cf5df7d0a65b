/**
 * Owns faults that are made of several, in an order that random ones hardly ever meet: each is the worst moment for one
 * kind of bug. All of them end by themselves.
 */
import type { Cluster, Member } from "./cluster.ts";
import { between, below, chance, pick, type Random, type Scheduler } from "./scheduler.ts";

export interface Stage {
  readonly scheduler: Scheduler;
  readonly random: Random;
  readonly cluster: Cluster;
  /** Kills a process; it is back after a time in this range. */
  crash(id: string, downMs: readonly [number, number]): void;
}

const POLL_MS = 5;
const ECHO_PATIENCE_MS = 6_000;
const AWAY_MS_MAX = 4_000;

function later({ scheduler, random }: Stage, min: number, max: number, fn: () => void): void {
  scheduler.after(between(random, min, max), fn);
}

/** A leader sleeps through an election, wakes up, and hears clients but none of its peers. */
export function staleLeader(stage: Stage): void {
  const { cluster, random } = stage;
  const { network, ids } = cluster;
  const leader = cluster.leader();
  if (!leader) return;
  for (const id of ids) if (id !== leader.id) network.bus.cut(id, leader.id);
  const ms = between(random, 600, 820);
  leader.process?.pause(ms);
  later(stage, ms + 400, ms + 1_500, () => network.bus.heal());
}

/** A leader dies after it has answered a client and before it has told anybody that the entry is committed. */
export function untold(stage: Stage): void {
  const { cluster, random } = stage;
  const { network, ids, members } = cluster;
  const leader = cluster.leader();
  if (!leader) return;
  for (const id of ids) {
    if (id === leader.id) continue;
    const { faults } = (members.get(id) as Member).database;
    // Whoever leads next takes its time to commit something.
    faults.slowness = between(random, 10, 40);
    later(stage, 2_000, 3_000, () => (faults.slowness = 1));
  }
  // What is on its way to the disks of the others still gets there, and is acknowledged.
  later(stage, 20, 200, () => {
    cluster.checker.whenChosen((replica) => {
      if (replica !== leader.id) return;
      for (const id of ids) if (id !== leader.id) network.bus.cut(leader.id, id);
      later(stage, 2, 15, () => stage.crash(leader.id, [1_500, 3_000]));
      later(stage, 1_500, 2_500, () => network.bus.heal());
    });
  });
}

/**
 * A replica is away until the others' logs begin after its end, and something breaks while its snapshot is on its way, or
 * is being installed.
 */
export function leftBehind(stage: Stage): void {
  const { cluster, scheduler, random } = stage;
  const { members, ids, network } = cluster;
  const id = pick(random, ids);
  const { disk } = (members.get(id) as Member).database;
  const others = ids.filter((other) => other !== id).map((other) => members.get(other) as Member);
  const endMs = scheduler.nowMs() + AWAY_MS_MAX;
  const last = disk.state?.lastIndex ?? 0;
  if (others.length === 0) return;
  cluster.kill(id);
  const breaks: readonly (() => void)[] = [
    () => stage.crash(id, [20, 500]),
    () => (members.get(id) as Member).database.crash(between(random, 20, 500)),
    () => (members.get(id) as Member).database.disconnect(),
    () => stage.crash(cluster.leader()?.id ?? id, [20, 1_000]),
    () => network.restart([id], between(random, 20, 500), false),
    () => undefined,
  ];
  const poll = (): void => {
    const isBehind = others.every(({ database }) => (database.disk.state?.base.index ?? 0) > last);
    if (!isBehind && scheduler.nowMs() < endMs) return void scheduler.after(POLL_MS, poll);
    if ((members.get(id) as Member).process === null) cluster.start(id);
    const step = pick(random, ["receiving", "installing"] as const);
    cluster.whenSnapshot(id, step, () => later(stage, 0, 30, pick(random, breaks)));
  };
  poll();
}

/**
 * Acknowledgements of an old reign come again in a new one. A leader and one follower write for themselves (both of a
 * minority); the others elect somebody, who dies; when the old leader leads again, its deaf follower's old messages arrive.
 */
export function echo(stage: Stage, done: () => void): void {
  const { cluster, scheduler, random } = stage;
  const { network, ids, members } = cluster;
  const first = cluster.leader();
  const follower = pick(
    random,
    ids.filter((id) => id !== first?.id),
  );
  if (!first || ids.length < 5) return done();
  const rest = ids.filter((id) => id !== first.id && id !== follower);
  const cut = (from: string, to: string): void => network.bus.cut(from, to);
  for (const a of [first.id, follower]) {
    for (const b of rest) {
      cut(a, b);
      cut(b, a);
    }
  }
  const endMs = scheduler.nowMs() + ECHO_PATIENCE_MS;
  const replaced = chance(random, 0.7);
  let crashes = 0;
  const end = (): void => {
    network.bus.heal();
    done();
  };
  const poll = (): void => {
    if (scheduler.nowMs() > endMs) return end();
    const leader = cluster.leader();
    if (leader?.id === first.id && leader.process !== null) {
      network.echo(follower);
      return later(stage, 20, 300, end);
    }
    const lastEpoch = (member: Member): number => {
      const { log, state } = member.database.disk;
      return log.get(state?.lastIndex ?? 0)?.entry.epoch ?? 0;
    };
    const follows = leader && lastEpoch(first) >= (leader.replica?.status().term ?? Infinity);
    if (follows && crashes < (ids.length - 1) / 2 - 1) {
      crashes += 1;
      stage.crash(leader.id, [3_000, 5_000]);
    }
    scheduler.after(POLL_MS, poll);
  };
  network.remember(follower);
  later(stage, 350, 390 + below(random, 500), () => {
    network.bus.heal();
    for (const id of ids) if (id !== follower) cut(id, follower);
    for (const id of rest) {
      const { faults } = (members.get(id) as Member).database;
      faults.slowness = between(random, 5, 60);
      later(stage, 4_000, 6_000, () => (faults.slowness = 1));
    }
    // Otherwise the old leader may come back at once, with what it wrote for itself.
    if (replaced) first.process?.pause(between(random, 300, 900));
    scheduler.after(POLL_MS, poll);
  });
}
