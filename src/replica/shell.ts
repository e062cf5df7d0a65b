/**
 * Owns the life of a replica process: one session after another, until it is closed, fenced or halted.
 *
 *   starting → running ⇄ recovering          any failure of the store: boot it again, with backoff, then a fresh engine
 *                 ↓ ↘ non_voting             promises lost or log damaged: replicates, never votes or counts
 *              halted        closed          halted answers `status` and keeps the evidence; fenced ends the process
 */
import type { EngineStatus, Role } from "../consensus/engine.ts";
import type { ReplicaStatus } from "../model/api.ts";
import { bytesEqual } from "../model/bytes.ts";
import { ShardpactError, isShardpactError, toShardpactError } from "../model/errors.ts";
import type { LogState } from "../storage/port.ts";
import type { Refusal } from "../transport/port.ts";
import type { SessionContext } from "./context.ts";
import type { Promised } from "./persist-queue.ts";
import { type Session, type SessionEvents, startSession } from "./session.ts";

const BACKOFF_MS_MIN = 50;
const BACKOFF_MS_MAX = 1_000;
const STOP_MS_MAX = 2_000;

export type ReplicaState = ReplicaStatus["state"];

/** What a replica tells its owner. */
export type ReplicaEvent =
  | { readonly kind: "state"; readonly state: ReplicaState; readonly reason: string | null }
  | { readonly kind: "booted"; readonly boot: number; readonly incarnation: string; readonly lastIndex: number }
  | { readonly kind: "role"; readonly role: Role; readonly leader: string | null; readonly term: number }
  | { readonly kind: "stepped_down"; readonly reason: string }
  /** `refused`: a subject that the server does not let this replica use; null when only the connection changed. */
  | { readonly kind: "nats"; readonly connected: boolean; readonly refused: Refusal | null }
  | { readonly kind: "postgres"; readonly up: boolean; readonly reason: string | null };

export interface Shell {
  state(): ReplicaState;
  /** Null while there is none: starting, recovering, halted, closed. */
  session(): Session | null;
  status(): ReplicaStatus;
  /** Resolves when the replica has ended: with the reason, or null after `close`. */
  readonly ended: Promise<ShardpactError | null>;
  close(): Promise<void>;
}

export interface ShellOptions<M> extends SessionContext<M> {
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
  let recovery: Promise<void> | null = null;
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

  async function dropSession(error: ShardpactError): Promise<void> {
    const old = session;
    session = null;
    shown = null;
    if (old) await atMost(STOP_MS_MAX, old.stop(error));
  }

  function atMost(ms: number, work: Promise<void>): Promise<void> {
    return new Promise((resolve) => {
      const cancel = runtime.after(ms, resolve);
      void work.finally(() => {
        cancel();
        resolve();
      });
    });
  }

  async function boot(): Promise<void> {
    const start = await stores.log.boot();
    setPostgres(true, null);
    if (isClosed()) return;
    checkGenesis(start, identity.genesisBytes);
    const lost = before === null || latest === null ? null : wentBack(before, latest.promised(), start);
    if (lost !== null && start.voting) await stores.log.loseVote(lost);
    before = start;
    const voting = start.voting && lost === null;
    onEvent({ kind: "booted", boot: start.boot, incarnation: start.incarnation, lastIndex: start.lastIndex });
    setState("running", null);
    session = startSession(options, { ...start, voting }, events);
    latest = session;
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

  async function recover(first: ShardpactError): Promise<void> {
    await dropSession(new ShardpactError("unavailable", `this replica is recovering: ${first.message}`));
    for (let waitMs = BACKOFF_MS_MIN; !isClosed(); waitMs = Math.min(waitMs * 2, BACKOFF_MS_MAX)) {
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
      await new Promise<void>((resolve) => void runtime.after(waitMs, resolve));
    }
  }

  async function halt(error: ShardpactError): Promise<void> {
    setState("halted", `${error.code}: ${error.message}`);
    await dropSession(new ShardpactError("unavailable", `this replica is halted: ${error.message}`));
  }

  async function finish(error: ShardpactError | null): Promise<void> {
    if (isClosed()) return;
    setState("closed", error?.message ?? null);
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
    },
    nonVoting: (why) => setState("non_voting", why),
    steppedDown: (why) => onEvent({ kind: "stepped_down", reason: why }),
    confirm: options.onConfirm,
    failed: settle,
    halted: (error) => void halt(error),
  };

  function status(): ReplicaStatus {
    const engine = session?.engineStatus();
    const applied = session?.apply.applied() ?? before?.applied;
    return {
      group: config.genesis.name,
      groupId: identity.groupId,
      replica: config.replica,
      incarnation: before?.incarnation ?? "",
      boot: before?.boot ?? 0,
      state,
      role: engine?.role ?? "none",
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

  try {
    await boot();
  } catch (error) {
    if (!isShardpactError(error, "unavailable")) throw error;
    settle(error);
  }
  async function close(): Promise<void> {
    await session?.handOver();
    await finish(null);
  }

  return { state: () => state, session: () => session, status, ended, close };
}

/** What another boot would answer again. */
function isFinal(error: ShardpactError): boolean {
  return error.code === "config_invalid" || error.code === "damaged" || error.code === "upgrade_required";
}

/** @throws ShardpactError `config_invalid` when the log begins with another group's first entry. */
function checkGenesis({ configurations }: LogState, genesisBytes: Uint8Array): void {
  const first = configurations[0];
  if (!first || first.index !== 1 || bytesEqual(first.payload, genesisBytes)) return;
  throw new ShardpactError("config_invalid", "this database holds the log of another group", {
    hint: "Give the replica the genesis that its database was made with, or another database.",
  });
}

/** Why the database behind this process is not the one, or older than the one, that it used before; else null. */
function wentBack(before: LogState, promised: Promised, now: LogState): string | null {
  if (now.incarnation !== before.incarnation) return "another database took the place of this replica's";
  if (now.boot <= before.boot)
    return `the database went back: boot ${before.boot} was used and now it counts ${now.boot}`;
  const { epoch, votedFor } = promised.hardState;
  if (now.hardState.epoch < epoch) return `the database went back behind epoch ${epoch}, which it held`;
  if (now.hardState.epoch === epoch && votedFor !== null && now.hardState.votedFor !== votedFor)
    return `the database has forgotten its vote of epoch ${epoch}`;
  if (now.lastIndex < promised.lastIndex)
    return `the database held entries up to ${promised.lastIndex} and now ends at ${now.lastIndex}`;
  return null;
}
