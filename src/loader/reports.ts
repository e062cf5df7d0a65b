/**
 * Owns what a loader tells the group about its run: `run.begin` before the first batch, receipts at checkpoints, at epoch ends
 * (at most one every 30 s) and at the end; never per step.
 */
import type { ConfirmedVersion } from "../client/types.ts";
import type { Digest } from "../model/bytes.ts";
import { toShardpactError, type ShardpactError } from "../model/errors.ts";
import type { LoaderPorts } from "./internal.ts";
import type { LoaderPlan } from "./plan.ts";
import { splitReceipt } from "./receipt-log.ts";
import type { Receipt } from "./receipt.ts";

const RECEIPT_EVERY_MS = 30_000;

export interface RunOptions {
  readonly id: string;
  readonly meta?: Readonly<Record<string, string>>;
}

export interface Reports {
  /** Get-or-create of the run, once, in an epoch that it trains on its version in. @throws `plan_mismatch`, `run_ended`, `no_quorum`, … */
  begin(epoch: number): Promise<void>;
  /** Sends a receipt in the background, unless one was sent a moment ago. */
  epochEnded(): void;
  /** A checkpoint was written: sends the receipt that names it. */
  checkpointed(checkpoint: Digest): Promise<void>;
  /** Sends the last receipt. */
  end(): Promise<void>;
}

export function createReports(
  version: Pick<ConfirmedVersion, "beginRun" | "sendReceipt">,
  plan: LoaderPlan,
  run: RunOptions | undefined,
  receipt: (checkpoint?: Digest) => Receipt,
  ports: LoaderPorts,
): Reports {
  let begun: Promise<void> | null = null;
  let sending: Promise<void> = Promise.resolve();
  let sentMs = -Infinity;
  let sentDigest = "";
  let partsSent = 0;

  async function begin(id: string, epoch: number): Promise<void> {
    const [dataset = "", number = "0"] = plan.dataset.split("@v");
    const { root, selection, order, world, batchSize, last } = plan;
    const fixed = { dataset, version: Number(number), root, selection, order, world, batchSize, last };
    const meta = run?.meta ?? {};
    if (plan.follow) await version.beginRun(id, { ...fixed, follow: true }, meta, epoch);
    else await version.beginRun(id, fixed, meta);
  }

  /** A receipt that can't be sent is not an error of training; the next one covers it. */
  function send(id: string, checkpoint?: Digest): Promise<void> {
    const body = receipt(checkpoint);
    const isKnown = body.orderDigest === sentDigest && checkpoint === undefined;
    if (isKnown || body.spans.length === 0) return sending;
    sentMs = ports.nowMs();
    sending = sending
      .then(() => record(id, body))
      .then(
        () => void (sentDigest = body.orderDigest),
        (error: unknown) => ports.warn(notSent(id, toShardpactError(error))),
      );
    return sending;
  }

  /** Parts of a long receipt are recorded once, and before the receipt that names them. */
  async function record(id: string, body: Receipt): Promise<void> {
    const { parts, receipt: own } = splitReceipt(body);
    for (const part of parts.slice(partsSent)) {
      await version.sendReceipt(id, plan.rank, { ...part });
      partsSent++;
    }
    await version.sendReceipt(id, plan.rank, { ...own });
  }

  return {
    async begin(epoch) {
      if (!run) return;
      begun ??= begin(run.id, epoch);
      await begun.catch((error: unknown) => {
        begun = null;
        throw error;
      });
    },
    epochEnded() {
      if (run && begun && ports.nowMs() - sentMs >= RECEIPT_EVERY_MS) void send(run.id);
    },
    async checkpointed(checkpoint) {
      if (run && begun) await send(run.id, checkpoint);
    },
    async end() {
      if (run && begun) await send(run.id);
    },
  };
}

function notSent(run: string, error: ShardpactError): string {
  return `a receipt of run ${run} could not be recorded: ${error.message}`;
}
