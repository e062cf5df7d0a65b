/**
 * Owns how workers add up their gradients over NATS: a step counts for all of them or for none.
 *
 *   my gradient ──▶ all N are here, of this very step, from weights like mine ──▶ "ready" ──▶ N times ready ──▶ apply
 *
 * Each worker sends its gradient to all, and checks what each was made from before it counts. Then it says that it is ready;
 * who hears that from all knows that everybody holds the same N gradients and found them good. Each averages them by
 * itself, in the order of ranks, so that weights stay equal to the last bit. Whatever is missing at the deadline or is not
 * as it should be ends the attempt: the step is not applied, and all go on from the last checkpoint.
 *
 * N·(N−1) gradients travel in a step. That is good for some workers and some MiB; for more, let each rank average one
 * N-th of the gradient and send that round, under the same two rounds.
 */
import { randomUUID } from "node:crypto";
import { connect } from "nats";
import { requireSameStep } from "shardpact/loader";
import { createArrivals, PeerFault } from "./arrivals.ts";
import {
  decodeContribution,
  decodeMessage,
  digestOf,
  encodeContribution,
  encodeMessage,
  PART_BYTES,
  type Contribution,
  type Message,
} from "./exchange-messages.ts";

const HELLO_EVERY_MS = 200;
const CLOSE_TIMEOUT_MS = 2_000;

export interface ExchangeOptions {
  /** NATS servers for gradients. */
  readonly servers: readonly string[];
  /** Names this start of the workers: nothing that an earlier one left behind is taken for ours. */
  readonly attempt: string;
  readonly rank: number;
  readonly world: number;
  readonly gradientBytes: number;
  /** Until all workers are there, each with its first gradient. */
  readonly joinTimeoutMs: number;
  /** For each of the two rounds of a step. */
  readonly stepTimeoutMs: number;
}

export interface Exchange {
  /** All contributions to the step in the order of ranks, once every worker holds them all. @throws PeerFault */
  step(name: string, own: Contribution): Promise<readonly Contribution[]>;
  /** Tells the others that this worker stops: they need not wait for the deadline. */
  leave(reason: string): Promise<void>;
  close(): Promise<void>;
}

export async function openExchange(o: ExchangeOptions): Promise<Exchange> {
  const nats = await connect({ servers: [...o.servers], name: `worker ${o.rank}`, noEcho: true });
  const subject = `_INBOX.${o.attempt}`; // what connections without credentials may use on a group's NATS servers
  const me = { rank: o.rank, process: randomUUID() };
  const ranks = [...Array(o.world).keys()];
  const others = ranks.filter((rank) => rank !== o.rank);
  const arrivals = createArrivals(me, o.world, o.gradientBytes);
  let wake = (): void => undefined;

  const say = (header: Message, bytes?: Uint8Array): void => nats.publish(subject, encodeMessage(header, bytes));
  nats.subscribe(subject, {
    callback: (error, { data }) => {
      const message = error ? null : decodeMessage(data);
      if (message) arrivals.receive(message.header, message.bytes);
      wake();
    },
  });
  await nats.flush(); // whoever hears us can rely on it that we listen

  /** Waits for all others. @throws PeerFault naming who is missing, at the deadline or as soon as they have left */
  async function until(isThere: (rank: number) => boolean, what: string, timeoutMs: number): Promise<void> {
    const deadlineMs = performance.now() + timeoutMs;
    for (;;) {
      if (arrivals.fault) throw arrivals.fault;
      const missing = others.filter((rank) => !isThere(rank));
      if (missing.length === 0) return;
      for (const rank of missing) {
        const reason = arrivals.leftBecause(rank);
        if (reason !== undefined) throw new PeerFault(rank, `worker ${rank} has stopped: ${reason}`);
      }
      const restMs = deadlineMs - performance.now();
      if (restMs <= 0) {
        throw new PeerFault(missing[0]!, `worker ${missing.join(" and ")} ${what} within ${timeoutMs / 1000} s`);
      }
      await new Promise<void>((resolve) => {
        const timer = setTimeout(resolve, restMs);
        wake = () => void (clearTimeout(timer), resolve());
      });
    }
  }

  /** Until all are here. Who has heard all stops calling: its gradient tells the others that it came. */
  async function meet(): Promise<void> {
    const hello = (): void => say({ kind: "hello", ...me });
    hello();
    const timer = setInterval(hello, HELLO_EVERY_MS);
    try {
      await until(arrivals.hasCome, "did not come", o.joinTimeoutMs);
    } finally {
      clearInterval(timer);
    }
  }

  return {
    async step(name, own) {
      const { step } = arrivals;
      if (step === 0) await meet();
      const mine = encodeContribution(own);
      for (let offset = 0; offset < mine.byteLength; offset += PART_BYTES) {
        const part = mine.subarray(offset, offset + PART_BYTES);
        say({ kind: "part", ...me, step, offset, total: mine.byteLength }, part);
      }
      const hasSent = (rank: number): boolean => arrivals.contributionOf(rank) !== undefined;
      await until(hasSent, `sent no gradient for ${name}`, o.stepTimeoutMs);
      const bytes = ranks.map((rank) => (rank === o.rank ? mine : arrivals.contributionOf(rank)!));
      const all = bytes.map((sent, rank) => (rank === o.rank ? own : requireGood(own, rank, sent)));

      const digest = digestOf(...bytes);
      say({ kind: "ready", ...me, step, digest });
      const isReady = (rank: number): boolean => arrivals.readyOf(rank) !== undefined;
      await until(isReady, `was not ready to apply ${name}`, o.stepTimeoutMs);
      const unequal = others.find((rank) => arrivals.readyOf(rank) !== digest);
      if (unequal !== undefined) throw new PeerFault(unequal, `worker ${unequal} holds other gradients for ${name}`);
      arrivals.advance();
      return all;
    },
    async leave(reason) {
      say({ kind: "leave", ...me, reason: reason.slice(0, 2000) });
      await nats.flush();
    },
    async close() {
      const late = new Promise((resolve) => setTimeout(resolve, CLOSE_TIMEOUT_MS).unref());
      await Promise.race([nats.flush().catch(() => undefined), late]);
      await nats.close();
    },
  };
}

/** The fence: a gradient of another version, plan, step or rank, or from other weights, is refused before it counts. */
function requireGood(own: Contribution, rank: number, bytes: Uint8Array): Contribution {
  const theirs = decodeContribution(bytes);
  if (theirs === null) throw new PeerFault(rank, `worker ${rank} sent no gradient but something else`);
  try {
    requireSameStep(own.origin, theirs.origin);
  } catch (error) {
    throw new PeerFault(rank, (error as Error).message, error);
  }
  if (theirs.origin.rank !== rank) throw new PeerFault(rank, `worker ${rank} sent the gradient of another rank`);
  if (theirs.gradient.length !== own.gradient.length)
    throw new PeerFault(rank, `worker ${rank} trains another model: its gradient has another length`);
  if (theirs.weights !== own.weights)
    throw new PeerFault(rank, `worker ${rank} has other weights than worker ${own.origin.rank}`);
  return theirs;
}
