/**
 * Owns the loader itself, without tensors: cursor, iterators, acknowledgement, receipts, run and reconfirmation.
 *
 *   iterator ── next() ──▶ delivered ── ack (following next, onBatchEnd, by hand) ──▶ cursor and receipt move on
 *
 * All that depends on the version stands on a `Stage`; a run that follows its dataset goes to the next one before the first
 * batch of an epoch, and its state with the first acknowledged one. One iterator consumes at a time. A newer one takes over at the acknowledged cursor (frameworks abandon iterators
 * without telling), and the older one then gets `loader_busy`. No I/O happens before the first `next()`.
 */
import { randomUUID } from "node:crypto";
import type { ConfirmedVersion } from "../client/types.ts";
import { type Digest, parseDigest } from "../model/bytes.ts";
import { isShardpactError, ShardpactError, toShardpactError } from "../model/errors.ts";
import { listColumns } from "./columns/options.ts";
import { advanced, startState, type LoaderState } from "./cursor.ts";
import { startFeed, type Feed, type HostBatch } from "./feed.ts";
import { nextStage } from "./follow.ts";
import { checkOptions, type LoaderOptions } from "./loader-options.ts";
import { DEFAULT_PORTS, type LoaderPorts } from "./internal.ts";
import { stepsLeft } from "./order/slices.ts";
import { columnsDigest } from "./origin.ts";
import type { LoaderPlan } from "./plan.ts";
import { createReceiptTracker, type Receipt } from "./receipt.ts";
import { createReports } from "./reports.ts";
import { openSource, type Source } from "./fetch/source.ts";
import { planStage, type StageOptions } from "./stage.ts";
import { abortError } from "../shards/until-aborted.ts";
import { historyCheck, RECONFIRM_EVERY_MS_DEFAULT, startWatch, type Watch } from "./watch.ts";

export type { LoaderOptions } from "./loader-options.ts";

export interface HostIterator {
  /** The next batch of this epoch, or null at its end; acknowledges the batch before. */
  next(): Promise<HostBatch | null>;
  /** Ends the iterator; what it delivered last stays unacknowledged. */
  return(): Promise<void>;
}

export interface HostLoader extends AsyncDisposable {
  /** Of the version that the loader stands on: with `follow`, another one after an end of an epoch. */
  readonly plan: LoaderPlan;
  /** Whether a start at zero or at an epoch's first row: what `repeat` needs. */
  readonly isAtEpochStart: boolean;
  readonly hasMap: boolean;
  iterate(): HostIterator;
  /** Acknowledges a delivered batch (default: the last). A batch of an abandoned iterator is not acknowledged any more. */
  ack(batch?: HostBatch): void;
  state(): LoaderState;
  receipt(): Receipt;
  /** A checkpoint of the present state was written: tells the group. */
  checkpointed(digest: Digest): Promise<void>;
  close(): Promise<void>;
}

/** The opened version, planned, and the options that later ones are planned with. */
function firstStage(version: ConfirmedVersion, o: LoaderOptions, ports: LoaderPorts) {
  checkOptions(o);
  if (o.follow && !o.run) {
    throw new ShardpactError("invalid_argument", "a loader that follows its dataset needs a run", {
      hint: "Pass run: { id }: in it the ranks agree on the version of each epoch.",
    });
  }
  const resumedSeed = o.resume?.order?.seed;
  const seed = o.seed ?? resumedSeed ?? (crypto.getRandomValues(new BigUint64Array(1))[0] as bigint);
  const columns = { xs: listColumns(o.xs, "xs"), ys: o.ys === undefined ? [] : listColumns(o.ys, "ys") };
  const shuffle = o.shuffle ?? o.resume?.order?.strength ?? false;
  const options: StageOptions = { ...o, shuffle, seed, columns };
  const first = planStage(version, options);
  if (o.seed === undefined && resumedSeed === undefined && first.plan.order.strength !== "none") {
    ports.warn(`seed drawn: ${first.plan.order.seed}; it is in state(). Give \`seed\` to have the same order again`);
  }
  const { steps, rows, stepRows, split } = first.plan;
  if (steps === 0 && rows > 0) {
    ports.warn(
      `an epoch has no step: '${split}' has ${rows} rows, a step of all ranks takes ${stepRows} (last: 'pad' fills it up)`,
    );
  }
  return { options, first };
}

/**
 * Synchronous, no I/O. @throws ShardpactError `column_unknown`, `type_unsupported`, `shape_differs`, `class_unknown`,
 * `invalid_argument`, `not_found`, `budget_too_small`, `full_shuffle_too_costly`, `resume_mismatch`, `group_forked`
 */
export function createHostLoader(
  version: ConfirmedVersion,
  o: LoaderOptions,
  ports: LoaderPorts = DEFAULT_PORTS,
  begins: "at the cursor" | "at row 0" = "at the cursor", // each iterator
): HostLoader {
  const { options: stageOptions, first } = firstStage(version, o, ports);
  const { columns } = stageOptions;
  let stage = first;
  const withBytes = o.receipt === "bytes";
  const tracker = createReceiptTracker(stage.plan.rank, columns, withBytes);
  const controller = new AbortController();
  const signal = o.signal ? AbortSignal.any([o.signal, controller.signal]) : controller.signal;
  const requireHistory = historyCheck(version, o.resume, signal);
  const watchOver = (watched: ConfirmedVersion): Watch =>
    startWatch({
      version: watched,
      reconfirm: o.reconfirm ?? { everyMs: RECONFIRM_EVERY_MS_DEFAULT },
      onUnconfirmed: o.onUnconfirmed ?? "pause",
      run: o.run?.id,
      ports,
      signal,
    });
  let watch = watchOver(version);
  let state = startState(version, stage.plan, randomUUID(), o.resume);
  const reports = createReports(version, stage.plan, o.run, (checkpoint) => tracker.receipt(state, checkpoint), ports);
  let source: Promise<Source> | null = null;
  let closing: Promise<void> | null = null;
  let active: { readonly owner: HostIterator; readonly feed: Feed } | null = null;
  let isStepping = false; // a next() runs
  let delivered: HostBatch | null = null; // by the active iterator, not acknowledged

  rollEpoch();
  // A state at the start of an epoch stands on the version of the one before.
  let settledEpoch = state.offset > 0 || state.epoch === 0 ? state.epoch : state.epoch - 1;

  /** Moves a cursor that has no step left to the start of the next epoch. */
  function rollEpoch(): void {
    const { steps, rows, stepRows, last } = stage.plan;
    if (steps > 0 && stepsLeft(rows, state.offset, stepRows, last) === 0) {
      state = { ...state, epoch: state.epoch + 1, offset: 0 };
      reports.epochEnded();
    }
  }

  function ack(batch = delivered): void {
    if (batch === null || batch !== delivered) return;
    delivered = null;
    const { plan } = stage;
    const { epoch, from, to, digest } = batch;
    const isLast = stepsLeft(plan.rows, to, plan.stepRows, plan.last) === 0;
    const dropped = isLast ? plan.rows - to : 0;
    const padded = isLast && plan.last === "pad" ? (plan.stepRows - ((to - from) % plan.stepRows)) % plan.stepRows : 0;
    tracker.add(plan, { epoch, from, to, dropped, padded, bytes: digest });
    state = advanced(state, stage.version, plan, to);
    rollEpoch();
  }

  /** Before the first batch of an epoch: on to the version that the ranks of the run agree on for it. */
  async function follow(run: string): Promise<void> {
    const { epoch } = state;
    if (settledEpoch >= epoch) return;
    const { onUnfit = "stop", onUnconfirmed = "pause" } = o;
    const next = await nextStage(stage, epoch, { run, stage: stageOptions, onUnfit, onUnconfirmed, ports, signal });
    if (closing) throw closedError();
    settledEpoch = epoch;
    if (next === stage) return;
    const left = source;
    [stage, source] = [next, null];
    watch.close();
    watch = watchOver(next.version);
    await (await left?.catch(() => null))?.close();
  }

  /** Starts the iterator's feed at the acknowledged cursor, ending the one before it. */
  async function activate(owner: HostIterator): Promise<Feed> {
    const before = active;
    active = null;
    delivered = null;
    await before?.feed.stop();
    await requireHistory();
    await reports.begin(settledEpoch);
    if (o.follow && o.run) await follow(o.run.id);
    await watch.beginEpoch();
    const { plan, shape } = stage;
    source ??= openSource(stage.version, plan, shape, signal, ports);
    const opened = await source.catch((error: unknown) => {
      source = null;
      throw error;
    });
    await opened.clear();
    const order = {
      root: parseDigest(plan.root),
      selection: parseDigest(plan.selection),
      rows: plan.rows,
      order: plan.order,
    };
    if (begins === "at row 0") state = { ...state, epoch: 0, offset: 0 };
    const { epoch, offset } = state;
    const asked = { plan, order, shape, columns: columnsDigest(columns), map: o.map, withDigest: withBytes };
    const feed = startFeed({ ...asked, ...opened, epoch, offset, signal, nowMs: ports.nowMs });
    active = { owner, feed };
    return feed;
  }

  function iterate(): HostIterator {
    let status: "new" | "started" | "done" = "new";
    const iterator: HostIterator = {
      async next() {
        if (closing) throw closedError();
        if (status === "done" || stage.plan.steps === 0) return null;
        if (isStepping || (status === "started" && active?.owner !== iterator)) throw busy();
        status = "started";
        isStepping = true;
        try {
          const batch = await step(iterator);
          if (batch === null) status = "done";
          if ((status as string) !== "done") return batch;
          await endActive(); // `return` came meanwhile
          return null;
        } catch (error) {
          status = "done";
          throw closing && isShardpactError(error, "aborted") ? closedError() : toShardpactError(error);
        } finally {
          isStepping = false;
        }
      },
      async return() {
        status = "done";
        if (active?.owner === iterator) await endActive();
      },
    };
    return iterator;
  }

  async function step(iterator: HostIterator): Promise<HostBatch | null> {
    const isActive = active?.owner === iterator;
    if (isActive) ack();
    try {
      if (signal.aborted) throw abortError(signal); // batches that wait are not handed out any more
      const feed = isActive && active ? active.feed : await activate(iterator);
      const closedGate = watch.gate();
      if (closedGate) await closedGate;
      const coming = feed.next();
      delivered = coming instanceof Promise ? await coming : coming;
    } catch (error) {
      await endActive();
      throw error;
    }
    if (delivered === null) await endActive();
    return delivered;
  }

  /** Stops reading ahead and forgets what was verified; a batch that was not acknowledged will come again. */
  async function endActive(): Promise<void> {
    const ended = active;
    active = null;
    delivered = null;
    await ended?.feed.stop();
    const opened = await source?.catch(() => null);
    await opened?.clear();
  }

  async function close(): Promise<void> {
    watch.close();
    await reports.end();
    controller.abort(new ShardpactError("closed", "the loader was closed"));
    await active?.feed.stop();
    active = null;
    const opened = await source?.catch(() => null);
    await opened?.close();
  }
  const closeOnce = (): Promise<void> => (closing ??= close());

  return {
    get plan() {
      return stage.plan;
    },
    get isAtEpochStart() {
      return state.offset === 0;
    },
    hasMap: o.map !== undefined,
    iterate,
    ack,
    state: () => state,
    receipt: () => tracker.receipt(state),
    checkpointed: (digest) => reports.checkpointed(digest),
    close: closeOnce,
    [Symbol.asyncDispose]: closeOnce,
  };
}

function closedError(): ShardpactError {
  return new ShardpactError("closed", "the loader is closed");
}

function busy(): ShardpactError {
  return new ShardpactError("loader_busy", "another iterator of this loader took over", {
    hint: "Consume one iterator at a time, or make a loader for each.",
  });
}
