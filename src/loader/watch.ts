/**
 * Owns asking the group again while a loader runs: is the version still good?
 *
 * The bytes are immutable and proven, so a group that can't be asked stops nothing at first: batches go on until the lease
 * of the last confirmation ends, then wait, and at last fail with `no_quorum`. Only what is known to be wrong (a revocation, a
 * forked group) stops at once.
 */
import type { ConfirmedVersion } from "../client/types.ts";
import { isShardpactError, ShardpactError, toShardpactError } from "../model/errors.ts";
import type { LoaderState } from "./cursor.ts";
import type { LoaderPorts } from "./internal.ts";

export type Reconfirm = "open" | "epoch" | { readonly everyMs: number };

export const RECONFIRM_EVERY_MS_DEFAULT = 30_000;

export interface WatchOptions {
  readonly version: Pick<ConfirmedVersion, "dataset" | "version" | "reconfirm" | "lease">;
  readonly reconfirm: Reconfirm;
  readonly onUnconfirmed: "pause" | "stop";
  /** The run whose lease is kept, if any. */
  readonly run: string | undefined;
  readonly ports: LoaderPorts;
  readonly signal: AbortSignal;
}

export interface Watch {
  /** Takes the run's lease and starts asking; also at the start of an epoch. @throws `revoked`, `group_forked`, `replica_diverged` */
  beginEpoch(): Promise<void>;
  /** Null while a batch may be delivered, else a wait until it may. @throws as `beginEpoch`, and `no_quorum`, `aborted` */
  gate(): Promise<void> | null;
  close(): void;
}

/** Asks once, before anything else of a resumed loader: does the group still have the history that the state was made in? */
export function historyCheck(
  version: Pick<ConfirmedVersion, "reconfirm">,
  resume: LoaderState | undefined,
  signal: AbortSignal,
): () => Promise<void> {
  let open = resume;
  return async () => {
    if (open === undefined) return;
    const [index, chain] = open.at;
    await version.reconfirm(signal, { groupId: open.group, index, chain });
    open = undefined;
  };
}

export function startWatch({ version, reconfirm, onUnconfirmed, run, ports, signal }: WatchOptions): Watch {
  let goodUntilMs = ports.nowMs() + ports.leaseMs;
  let fatal: ShardpactError | null = null;
  let timer: NodeJS.Timeout | null = null;
  let asking: Promise<boolean> | null = null;
  let warned = false;
  let closed = false;
  let leased = run === undefined;

  /** Asks once; true when the group confirmed. What is retryable is not an error yet. */
  async function askOnce(): Promise<boolean> {
    try {
      await version.reconfirm(signal);
      const leaseMs = run === undefined ? ports.leaseMs : await version.lease(run, ports.leaseMs);
      goodUntilMs = ports.nowMs() + leaseMs;
      warned = false;
      return true;
    } catch (error) {
      const typed = toShardpactError(error);
      if (!typed.retryable && !isShardpactError(typed, "aborted")) fatal = typed;
      return false;
    } finally {
      asking = null;
    }
  }
  const ask = (): Promise<boolean> => (asking ??= askOnce());

  function schedule(everyMs: number): void {
    if (closed || timer) return;
    timer = setTimeout(() => {
      timer = null;
      void ask().then(() => schedule(everyMs));
    }, everyMs);
    timer.unref();
  }

  async function pause(): Promise<void> {
    const what = `${version.dataset}@v${version.version} could not be confirmed again`;
    const failure = new ShardpactError("no_quorum", `${what} before its lease ended`, {
      hint: "Bring a majority of replicas back, then resume from the last state.",
    });
    if (onUnconfirmed === "stop") throw failure;
    if (!warned) ports.warn(`${what}; training waits for a majority of replicas`);
    warned = true;
    const giveUpMs = goodUntilMs + ports.pauseMsMax;
    while (!(await ask())) {
      if (fatal) throw fatal;
      if (signal.aborted) throw new ShardpactError("aborted", "loading was aborted", { cause: signal.reason });
      if (ports.nowMs() >= giveUpMs) throw failure;
      await sleep(ports.retryMs, signal);
    }
  }

  return {
    async beginEpoch() {
      if (!leased && run !== undefined) {
        goodUntilMs = ports.nowMs() + (await version.lease(run, ports.leaseMs));
        leased = true;
      }
      if (reconfirm === "open") return;
      if (reconfirm === "epoch") await ask();
      else schedule(reconfirm.everyMs);
      if (fatal) throw fatal;
    },
    gate() {
      if (fatal) throw fatal;
      return reconfirm !== "open" && ports.nowMs() >= goodUntilMs ? pause() : null;
    },
    close() {
      closed = true;
      if (timer) clearTimeout(timer);
      timer = null;
    },
  };
}

export function sleep(ms: number, signal: AbortSignal): Promise<void> {
  return new Promise((resolve) => {
    const done = () => {
      clearTimeout(timer);
      signal.removeEventListener("abort", done);
      resolve();
    };
    const timer = setTimeout(done, ms);
    signal.addEventListener("abort", done, { once: true });
  });
}
