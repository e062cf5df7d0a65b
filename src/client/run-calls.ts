/**
 * Owns what a loader tells and asks the group about its run: plan, receipts, lease, and, when the run follows its dataset,
 * which version an epoch has.
 *
 * The answer to a proposal is one replica's word. What ranks must agree on, the version of an epoch, is therefore read
 * again from a majority, and so is the version itself.
 */
import { z } from "zod";
import { versionAnswer, type CatalogQuery, type VersionAnswer } from "../model/api.ts";
import { orderSpec, type CommandBody, type CommandKind } from "../model/commands.ts";
import { isShardpactError, ShardpactError } from "../model/errors.ts";
import type { RefTarget } from "../model/names.ts";
import { expectAnswer } from "./answers.ts";
import { confirm } from "./confirm.ts";
import { makeCommand, propose } from "./propose.ts";
import type { Session } from "./session.ts";
import type { ConfirmedVersion, Following, RunEpoch } from "./types.ts";

type RunCalls = Pick<ConfirmedVersion, "beginRun" | "sendReceipt" | "lease" | "following">;
/** Opens another version of the same dataset, as `open` does. */
export type Reopen = (target: RefTarget, signal?: AbortSignal) => Promise<ConfirmedVersion>;

/** Versions of one answer: each is about a kilobyte. */
const VERSIONS_PER_ANSWER = 200;

export function runCalls(session: Session, { dataset, version }: VersionAnswer, reopen: Reopen): RunCalls {
  const tell = <K extends CommandKind>(kind: K, body: CommandBody<K>, signal?: AbortSignal) =>
    propose(session, makeCommand(session, session.timing.uniqueHex(), kind, body), calls(signal));
  return {
    beginRun: async (run, plan, meta, epoch) => {
      await tell("run.begin", { run, plan, meta: { ...meta }, ...(epoch === undefined ? {} : { epoch }) });
    },
    sendReceipt: async (run, rank, receipt) => {
      await tell("run.receipt", { run, rank, receipt: { ...receipt } });
    },
    lease: async (run, ttlMs) => {
      // Counted from before it was sent: the log's clock can't have started later than that.
      const sentMs = session.timing.nowMs();
      await tell("reader.lease", { dataset, version, run, ttlMs });
      return Math.max(0, ttlMs - (session.timing.nowMs() - sentMs));
    },
    following: {
      agreed: (run, epoch, signal) => agreedEpoch(session, run, epoch, signal),
      propose: async (run, { epoch, version: next, root, order }, signal) => {
        await tell("epoch.cut", { run, epoch, dataset, from: version, version: next, root, order }, signal);
      },
      newest: (signal) => newest(session, dataset, version, reopen, signal),
      open: async ({ version: wanted, root }, signal) => {
        const opened = await reopen({ kind: "version", version: wanted }, signal);
        if (opened.root === root) return opened;
        throw new ShardpactError("group_forked", `${dataset}@v${wanted} is ${opened.root}; the run agreed on ${root}`, {
          details: { expected: root, got: opened.root },
          hint: "The group's history changed: stop, and compare the replicas with `shardpact audit verify`.",
        });
      },
    } satisfies Following,
  };
}

const calls = (signal?: AbortSignal): { signal?: AbortSignal } => (signal === undefined ? {} : { signal });

const epochRow = z.object({
  epoch: z.number(),
  version: z.number(),
  root: z.templateLiteral(["b3:", z.string().regex(/^[0-9a-f]{64}$/)]),
  orderSpec,
});

/** What a run agreed on for one epoch, as JSON of its row says. @throws ShardpactError `damaged` */
export function readRunEpoch(row: unknown): RunEpoch {
  const parsed = epochRow.safeParse(row);
  if (!parsed.success) throw new ShardpactError("damaged", "an answer about a run's epoch does not validate");
  const { orderSpec: order, ...rest } = parsed.data;
  return { ...rest, order };
}

/**
 * What the run agreed on for an epoch, as a majority says. Where nobody has proposed yet, this rank does, what `choose` gives.
 * Can be done again after any failure: an epoch is fixed once.
 * @throws as `Following`, and `replica_diverged` when a majority does not know what was just acknowledged
 */
export async function agreeOn(
  following: Pick<Following, "agreed" | "propose">,
  run: string,
  epoch: number,
  choose: () => Promise<Omit<RunEpoch, "epoch">>,
  signal?: AbortSignal,
): Promise<RunEpoch> {
  const known = await following.agreed(run, epoch, signal);
  if (known !== null) return known;
  await following.propose(run, { epoch, ...(await choose()) }, signal);
  const agreed = await following.agreed(run, epoch, signal);
  if (agreed !== null) return agreed;
  throw new ShardpactError("replica_diverged", `a majority does not know what run '${run}' agreed on for ${epoch}`, {
    details: { run, epoch },
    hint: "Compare the replicas with `shardpact audit verify`.",
  });
}

async function agreedEpoch(
  session: Session,
  run: string,
  epoch: number,
  signal?: AbortSignal,
): Promise<RunEpoch | null> {
  const query: CatalogQuery = { kind: "run_epochs", run, after: epoch - 1, limit: 1 };
  const { answer } = await confirm(session, query, calls(signal));
  const [row] = expectAnswer(query, "rows", answer).rows.map(readRunEpoch);
  return row?.epoch === epoch ? row : null;
}

/** The head, or, when that is revoked, the highest version from `version` on that is not. */
async function newest(
  session: Session,
  dataset: string,
  version: number,
  reopen: Reopen,
  signal?: AbortSignal,
): Promise<ConfirmedVersion> {
  try {
    return await reopen({ kind: "head" }, signal);
  } catch (error) {
    if (!isShardpactError(error, "revoked")) throw error;
  }
  let best = version;
  for (let after = version; ;) {
    const query: CatalogQuery = { kind: "versions", dataset, after, limit: VERSIONS_PER_ANSWER };
    const { answer } = await confirm(session, query, calls(signal));
    const rows = expectAnswer(query, "rows", answer).rows.map((row) => versionAnswer.parse(row));
    best = rows.findLast(({ revocation }) => revocation === null)?.version ?? best;
    after = rows.at(-1)?.version ?? after;
    if (rows.length < VERSIONS_PER_ANSWER) break;
  }
  return reopen({ kind: "version", version: best }, signal);
}
