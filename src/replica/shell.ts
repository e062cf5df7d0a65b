/**
 * Owns the life of a replica process: one session after another, until it is closed, fenced or halted.
 *
 *   starting → running ⇄ recovering          any failure of the store: boot it again, with backoff, then a fresh engine
 *                 ↓ ↘ non_voting             promises lost or log damaged: replicates, never votes or counts
 *              halted        closed          halted answers `status` and keeps the evidence; fenced ends the process
 */
import type { EngineStatus, Role } from "../consensus/engine.ts";
import type { ConfigurationStatus, ReplicaStatus } from "../model/api.ts";
import { ShardpactError, isShardpactError, toShardpactError } from "../model/errors.ts";
import type { MemberRole } from "../model/group.ts";
import type { Files, LogState } from "../storage/port.ts";
import type { Refusal } from "../transport/port.ts";
import { createBackoff } from "./backoff.ts";
import { checkGenesis, isContradicted, isFinal, wentBack } from "./boot-checks.ts";
import type { SessionContext } from "./context.ts";
import type { Promised } from "./persist-queue.ts";
import { type Session, type SessionEvents, startSession } from "./session.ts";
import type { ReceiveStep, SnapshotToInstall } from "./snapshot-receiver.ts";
import type { SendStep } from "./snapshot-sender.ts";

const STOP_MS_MAX = 2_000;

export type ReplicaState = ReplicaStatus["state"];

/** What a replica tells its owner. */
export type ReplicaEvent =
  | { readonly kind: "state"; readonly state: ReplicaState; readonly reason: string | null }
  | { readonly kind: "booted"; readonly boot: number; readonly incarnation: string; readonly lastIndex: number }
  | { readonly kind: "role"; readonly role: Role; readonly leader: string | null; readonly term: number }
  | { readonly kind: "stepped_down"; readonly reason: string }
  /** A snapshot of `index` on its way to or from `peer`. */
  | {
      readonly kind: "snapshot";
      readonly step: SendStep | ReceiveStep;
      readonly peer: string;
      readonly index: number;
      readonly reason: string | null;
    }
  /** Another configuration is in force here; it may not be committed yet. */
  | { readonly kind: "membership"; readonly member: MemberRole; readonly configuration: ConfigurationStatus }
  /** `refused`: a subject that the server does not let this replica use; null when only the connection changed. */
  | { readonly kind: "nats"; readonly connected: boolean; readonly refused: Refusal | null }
  | { readonly kind: "postgres"; readonly up: boolean; readonly reason: string | null };

export interface Shell {
  state(): ReplicaState;
  /** Null while there is none: starting, recovering, halted, closed. */
  session(): Session | null;
  status(): ReplicaStatus;
  /** Ends the session, installs a snapshot and starts again. Null: what is applied is at or above it. */
  install(snapshot: SnapshotToInstall): Promise<ShardpactError | null>;
  /** Resolves when the replica has ended: with the reason, or null after `close`. */
  readonly ended: Promise<ShardpactError | null>;
  close(): Promise<void>;
}

export interface ShellOptions<M> extends SessionContext<M> {
  /** Where received snapshots are. */
  readonly files: Files;
  onEvent(event: ReplicaEvent): void;
  /** A confirmation that the leader forwarded. */
  onConfirm(body: Uint8Array): void;
}

/**
 * Boots the store once and starts. While Postgres is not there it goes on trying in the background.
 * @throws ShardpactError what a restart would not heal: `config_invalid`, `fenced`, `damaged`, …
 */
export async function startShell<M>(options: ShellOptions<M>): Promise<Shell> {
  const { config, identity, stores, runtime, onEvent } = options;
  const startedMs = runtime.monotonicMs();
  let state: ReplicaState = "starting";
  let reason: string | null = null;
  let session: Session | null = null;
  let postgresUp = false;
  let before: LogState | null = null;
  /** The newest life, also when it is over: it knows what it had written. */
  let latest: Session | null = null;
  let shown: EngineStatus | null = null;
  const tellMembership = createMembershipTeller(onEvent);
  let recovery: Promise<void> | null = null;
  /** Index of a snapshot that the next boot may find installed. */
  let awaited: number | null = null;
  const aborter = new AbortController();
  const backoff = createBackoff(() => runtime.monotonicMs());
  let end: (error: ShardpactError | null) => void = () => undefined;
  const ended = new Promise<ShardpactError | null>((resolve) => {
    end = resolve;
  });
  const isClosed = (): boolean => state === "closed";

  function setState(next: ReplicaState, why: string | null): void {
    if (isClosed() || (state === next && reason === why)) return;
    state = next;
    reason = why;
    onEvent({ kind: "state", state, reason });
  }

  function setPostgres(up: boolean, why: string | null): void {
    if (postgresUp === up) return;
    postgresUp = up;
    onEvent({ kind: "postgres", up, reason: why });
  }

  /** Resolves with whether nothing of the session runs any more. */
  async function dropSession(error: ShardpactError): Promise<boolean> {
    const old = session;
    session = null;
    shown = null;
    return old === null || (await atMost(STOP_MS_MAX, old.stop(error)));
  }

  function atMost(ms: number, work: Promise<void>): Promise<boolean> {
    return new Promise((resolve) => {
      const cancel = runtime.after(ms, () => resolve(false));
      void work.finally(() => {
        cancel();
        resolve(true);
      });
    });
  }

  async function boot(): Promise<void> {
    const start = await stores.log.boot();
    setPostgres(true, null);
    if (isClosed()) return;
    checkGenesis(start, identity.genesisBytes);
    const lost = before === null || latest === null ? null : wentBack(before, promisedUntil(latest, start), start);
    awaited = null;
    if (lost !== null && start.voting) await stores.log.loseVote(lost);
    before = start;
    const { voting, lostReason } = lost === null ? start : { voting: false, lostReason: lost };
    onEvent({ kind: "booted", boot: start.boot, incarnation: start.incarnation, lastIndex: start.lastIndex });
    backoff.booted();
    setState("running", null);
    session = startSession(options, { ...start, voting, lostReason }, events);
    latest = session;
    tellMembership(session, session.engineStatus());
  }

  /** Ends what no boot would heal, and starts the recovery from everything else. */
  function settle(error: ShardpactError): void {
    if (isClosed()) return;
    if (error.code === "fenced") return void finish(error);
    setPostgres(error.code !== "unavailable", error.message);
    setState("recovering", error.message);
    recovery ??= recover(error).finally(() => {
      recovery = null;
    });
  }

  /** `between`: with the old session gone, before the next; false: no next one. */
  async function recover(first: ShardpactError, between?: (quiet: boolean) => Promise<boolean>): Promise<void> {
    const { message, hint, details } = first;
    const why = new ShardpactError("unavailable", `this replica is recovering: ${message}`, { hint, details });
    const quiet = await dropSession(why);
    if (between && !(await between(quiet))) return;
    for (let waitMs = between ? 0 : backoff.first(); !isClosed(); waitMs = backoff.next(waitMs)) {
      if (waitMs > 0) await new Promise<void>((resolve) => void runtime.after(waitMs, resolve));
      try {
        await boot();
        return;
      } catch (caught) {
        const error = toShardpactError(caught);
        if (error.code === "fenced") return finish(error);
        if (isFinal(error)) return halt(error);
        setPostgres(error.code !== "unavailable", error.message);
        setState("recovering", error.message);
      }
    }
  }

  /** What the store must still hold: an installed snapshot may have taken the place of a tail that contradicted it. */
  function promisedUntil(life: Session, start: LogState): Promised {
    const promised = life.promised();
    if (awaited === null || start.applied.index < awaited) return promised;
    return { ...promised, lastIndex: Math.min(promised.lastIndex, start.lastIndex) };
  }

  async function install({ path, offer }: SnapshotToInstall): Promise<ShardpactError | null> {
    const notNow = new ShardpactError("unavailable", "this replica is not ready to install a snapshot");
    if (session === null || recovery !== null || isClosed()) return notNow;
    const doing = new ShardpactError("unavailable", `installing a snapshot of index ${offer.index}`);
    setState("recovering", doing.message);
    return await new Promise((resolve) => {
      recovery = recover(doing, async (quiet) => {
        const error = quiet && !isClosed() ? await tryInstall(path, offer) : notNow;
        resolve(error);
        if (error?.code === "fenced") return finish(error).then(() => false);
        const isForGood = error !== null && (isFinal(error) || isContradicted(error)) && error.code !== "damaged";
        if (isForGood) return halt(error).then(() => false);
        return true;
      }).finally(() => {
        recovery = null;
      });
    });
  }

  async function tryInstall(
    path: string,
    { index, digest }: SnapshotToInstall["offer"],
  ): Promise<ShardpactError | null> {
    awaited = index;
    try {
      await stores.catalog.installSnapshot(path, { digest, files: options.files, signal: aborter.signal });
      return null;
    } catch (error) {
      return toShardpactError(error);
    }
  }

  async function halt(error: ShardpactError): Promise<void> {
    setState("halted", `${error.code}: ${error.message}`);
    await dropSession(new ShardpactError("unavailable", `this replica is halted: ${error.message}`));
  }

  async function finish(error: ShardpactError | null): Promise<void> {
    if (isClosed()) return;
    setState("closed", error?.message ?? null);
    aborter.abort();
    // What ended this process is no answer to a client: whoever took over, or a peer, may take its command.
    const why = error === null ? "this replica is stopping" : `this replica has ended: ${error.message}`;
    await dropSession(new ShardpactError("unavailable", why));
    end(error);
  }

  const events: SessionEvents = {
    status(status) {
      const changed = shown?.role !== status.role || shown.leader !== status.leader || shown.epoch !== status.epoch;
      shown = status;
      if (changed) onEvent({ kind: "role", role: status.role, leader: status.leader, term: status.epoch });
      if (tellMembership(session, status) && state === "removed") setState("running", null);
    },
    removed: (index) => setState("removed", `it is no member any more as of index ${index}; its data stays as it is`),
    nonVoting: (why) => setState("non_voting", why),
    mended: () => setState("running", null),
    steppedDown: (why) => onEvent({ kind: "stepped_down", reason: why }),
    snapshot: (step, peer, index, why) => onEvent({ kind: "snapshot", step, peer, index, reason: why }),
    ...{ confirm: options.onConfirm, failed: settle },
    halted: (error) => void halt(error),
  };

  function status(): ReplicaStatus {
    const engine = session?.engineStatus();
    const membership = engine && session?.membership.status(engine);
    const applied = session?.apply.applied() ?? before?.applied;
    return {
      group: config.genesis.name,
      groupId: identity.groupId,
      replica: config.replica,
      incarnation: before?.incarnation ?? "",
      boot: before?.boot ?? 0,
      state,
      role: engine?.role ?? "none",
      member: membership?.member ?? "none",
      configuration: membership?.configuration ?? null,
      leader: engine?.leader ?? null,
      term: engine?.epoch ?? 0,
      commit: engine?.commit ?? 0,
      lastIndex: engine?.lastIndex ?? before?.lastIndex ?? 0,
      applied: applied?.index ?? 0,
      chain: applied?.chain ?? "",
      postgres: postgresUp ? "up" : "down",
      reason,
      uptimeMs: Math.round(runtime.monotonicMs() - startedMs),
    };
  }

  await boot().catch((error: unknown) => {
    if (!isShardpactError(error, "unavailable")) throw error;
    settle(error);
  });
  async function close(): Promise<void> {
    await session?.handOver();
    await finish(null);
  }

  return { state: () => state, session: () => session, status, install, ended, close };
}

/** Tells a configuration once; true when it is new and holds this replica. */
function createMembershipTeller(
  onEvent: (event: ReplicaEvent) => void,
): (session: Session | null, engine: EngineStatus) => boolean {
  let shown = "";
  return (session, engine) => {
    const told = session?.membership.status(engine);
    if (!told || told.configuration.digest === shown) return false;
    shown = told.configuration.digest;
    onEvent({ kind: "membership", ...told });
    return told.member !== "none";
  };
}
