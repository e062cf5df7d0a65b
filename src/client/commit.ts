/**
 * Owns bringing a draft into the log: its objects first, then the commit, under an id that a rerun derives again.
 *
 * What a commit made is its answer for ever: a rerun is told the version that it made, also when that is the head no
 * more. What it only saw (`unchanged`) held when it looked: a rerun looks again.
 */
import { z } from "zod";
import { concatBytes, parseDigest, type Digest } from "../model/bytes.ts";
import { isShardpactError, ShardpactError } from "../model/errors.ts";
import type { CallOptions } from "./confirm.ts";
import type { Draft } from "./draft.ts";
import { inParallel } from "../shards/parallel.ts";
import { commandIdOf, makeCommand, propose } from "./propose.ts";
import type { Session } from "./session.ts";

const PUTS_IN_FLIGHT = 8;
const COMMITS_MAX = 8;

const commitResult = z.object({
  version: z.number().int().positive(),
  root: z.string(),
  index: z.number().int().positive(),
  unchanged: z.boolean(),
});

export interface Committed {
  readonly dataset: string;
  readonly version: number;
  readonly root: Digest;
  readonly index: number;
  readonly unchanged: boolean;
}

/**
 * Puts pages, schema and vocabularies; the catalog holds them for an hour of log time.
 * Ids are fresh on purpose: putting again must extend the hold, while a retry under the old id would only be answered.
 */
export async function putObjects(
  session: Session,
  objects: Draft["objects"],
  o: CallOptions & { readonly onBytes?: (bytes: number) => void },
): Promise<void> {
  await inParallel(objects, PUTS_IN_FLIGHT, async ({ kind, digest, bytes }) => {
    await propose(session, makeCommand(session, session.timing.uniqueHex(), "page.put", { kind, digest }, bytes), o);
    o.onBytes?.(bytes.byteLength);
  });
}

/**
 * Commits. When the hold of a page ran out (an upload took longer than an hour) the objects are put again; the refusal
 * is recorded under its id, so that attempt and every later one have ids of their own.
 *
 * A recorded `unchanged` is asked again under a fresh id. That can't commit: the expected head has this root itself, or
 * was the head no more when the root was seen, and heads don't come back. So it is `unchanged` or `head_moved` as of now.
 * @throws ShardpactError `head_moved`, `page_missing`, and what `propose` throws
 */
export async function commitDraft(session: Session, draft: Draft, o: CallOptions): Promise<Committed> {
  const { dataset, expectedHead, root, kept, added, schema, classes, splits, splitRule, message } = draft;
  const body = {
    ...{
      dataset,
      expectedHead,
      kept,
      added: added.length,
      root,
      schema,
      classes,
      splits: [...splits],
      splitRule,
      message,
    },
  };
  const blob = concatBytes(added.map(parseDigest));
  const commitAs = async (id: string) => {
    const { result, retry } = await propose(session, makeCommand(session, id, "version.commit", body, blob), o);
    return { ...readResult(result, root), retry };
  };
  for (let attempt = 0; ; attempt++) {
    const id = commandIdOf("version.commit", session.actor, dataset, expectedHead, root, message, attempt);
    try {
      const first = await commitAs(id);
      const { version, index, unchanged } =
        first.unchanged && first.retry ? await commitAs(session.timing.uniqueHex()) : first;
      return { dataset, version, root, index, unchanged };
    } catch (error) {
      if (!isShardpactError(error, "page_missing") || attempt >= COMMITS_MAX) throw error;
      await putObjects(session, draft.objects, o);
    }
  }
}

function readResult(result: unknown, root: Digest): z.infer<typeof commitResult> {
  const parsed = commitResult.safeParse(result);
  if (parsed.success && parsed.data.root === root) return parsed.data;
  throw new ShardpactError("internal", "the group answered a commit with another root", { details: { result, root } });
}
