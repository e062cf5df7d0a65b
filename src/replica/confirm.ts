/**
 * Owns confirmations: the leader fixes an index R, and every voter that is still in the leader's term answers the client
 * directly, signed, as of R.
 *
 * Why a majority of equal answers is a linearizable read: the leader has committed in its own term, so its commit index
 * covers everything acknowledged in earlier terms (Raft §8); a write acknowledged in a later term before the request would
 * need a majority of voters in that term, and one of them would have refused to answer in this one. The majority is one
 * of the configuration as of R, of both halves if it is joint: a later configuration that elected somebody was committed
 * by a majority of this one, in a term that those voters have not left since. (Multi-Paxos: whoever leads a later ballot
 * has promises of a majority of every configuration that decides a slot after R, this one among them.)
 */
import { z } from "zod";
import {
  type AgreedPart,
  type CatalogAnswer,
  type CatalogQuery,
  type ConfirmAnswer,
  type OwnPart,
  type RevocationAnswer,
  confirmRequest,
  decodeApi,
  encodeApi,
  revocationAnswer,
} from "../model/api.ts";
import { utf8 } from "../model/bytes.ts";
import { canonicalJson } from "../model/commands.ts";
import { ShardpactError } from "../model/errors.ts";
import { type MemberInfo, votersOf } from "../model/group.ts";
import { sign } from "../model/keys.ts";
import { hashAs } from "../merkle/hash.ts";
import type { CatalogStore } from "../storage/port.ts";
import type { Transport } from "../transport/port.ts";
import type { GroupIdentity, ReplicaConfig } from "./config.ts";
import type { Session } from "./session.ts";

/** What the leader sends to the other voters. */
const forwarded = z.object({
  request: confirmRequest,
  term: z.number().int().nonnegative(),
  index: z.number().int().nonnegative(),
});
type Forwarded = z.infer<typeof forwarded>;

export interface ConfirmContext {
  readonly config: ReplicaConfig;
  readonly identity: GroupIdentity;
  readonly catalog: CatalogStore;
  readonly transport: Transport;
}

/** The leader's part: fixes R, forwards, and answers as a voter. @throws ShardpactError `not_leader`, `invalid_argument` */
export async function leadConfirm(context: ConfirmContext, session: Session, data: Uint8Array): Promise<void> {
  const request = decodeApi(confirmRequest, data);
  checkRequest(request);
  const { role, committedInEpoch, commit, epoch, configuration } = session.engineStatus();
  if (role !== "leader") throw new ShardpactError("not_leader", "this replica does not lead the group");
  if (!committedInEpoch) {
    throw new ShardpactError("unavailable", "the leader is new and has not committed in its term yet", {
      hint: "Ask again in a moment.",
    });
  }
  const order: Forwarded = { request, term: epoch, index: commit };
  const body = encodeApi(order);
  session.tellCommit();
  // Of the configuration in force, and of the one as of R, as far as it is known here: a few too many do no harm.
  const asOf = votersOf(session.membership.at(commit)).map((member) => member.id);
  for (const voter of new Set([...configuration.voters, ...configuration.votersOutgoing, ...asOf])) {
    if (voter !== context.config.replica) session.peers.send("confirm", voter, body);
  }
  await answerAsVoter(context, session, order);
}

/** A voter's part. Says nothing when it must not answer. */
export async function followConfirm(context: ConfirmContext, session: Session, body: Uint8Array): Promise<void> {
  const order = decodeApi(forwarded, body);
  checkRequest(order.request);
  await answerAsVoter(context, session, order);
}

async function answerAsVoter(context: ConfirmContext, session: Session, order: Forwarded): Promise<void> {
  const { request, term, index } = order;
  const { catalog, config, identity, transport } = context;
  const { voting, epoch } = session.engineStatus();
  if (!voting || epoch !== term) return;
  if (!(await session.apply.waitFor(index, request.waitMs))) return;
  const configuration = session.membership.at(index);
  // Neither a learner nor one that has left or is still to come is a voter as of R.
  if (!votersOf(configuration).some((member) => isSelf(context, member))) return;
  const [answer, chain] = await Promise.all([
    catalog.query(request.query, index),
    session.apply.recentChain(index) ?? catalog.chainAt(index),
  ]);
  // Meanwhile it may have learned that its promises are lost, or another life of this process may have begun, which may
  // have gone on to a later term before the read was made.
  if (chain === null || session.over() || !session.engineStatus().voting) return;
  const applied = session.apply.applied().index;
  const agreed: AgreedPart = {
    nonce: request.nonce,
    groupId: identity.groupId,
    term,
    index,
    chain,
    configuration: { index: configuration.index, number: configuration.number, digest: configuration.digest },
    voters: [...configuration.voters],
    votersOutgoing: [...configuration.votersOutgoing],
    answer,
  };
  const own: OwnPart = {
    replica: config.replica,
    boot: session.start.boot,
    applied,
    laterRevocation: applied > index ? await laterRevocation(catalog, request.query, answer, index) : null,
  };
  const agreedBytes = utf8(canonicalJson(agreed));
  const ownBytes = utf8(canonicalJson(own));
  const signature = sign(identity.key, hashAs("answer", agreedBytes, ownBytes));
  const message = { agreed: agreedBytes, own: ownBytes, signature } satisfies Record<keyof ConfirmAnswer, Uint8Array>;
  transport.publish(request.answerTo, encodeApi(message));
}

function isSelf({ config, identity }: ConfirmContext, { id, publicKey }: MemberInfo): boolean {
  return id === config.replica && publicKey === identity.key.publicKeyHex;
}

/** A revocation of what was answered, committed after `index`, that this replica has applied already. */
async function laterRevocation(
  catalog: CatalogStore,
  query: CatalogQuery,
  answer: CatalogAnswer,
  index: number,
): Promise<RevocationAnswer | null> {
  if (answer.kind === "version") {
    const { dataset, version } = answer.version;
    const target = { kind: "version" as const, version };
    const now = await catalog.query({ kind: "resolve", ref: { dataset, target } }, null);
    const found = now.kind === "version" ? now.version.revocation : null;
    return found && found.index > index ? found : null;
  }
  if (query.kind !== "revoked_shards" && query.kind !== "revocations_since") return null;
  const now = await catalog.query(query, null);
  if (now.kind !== "rows") return null;
  for (const row of now.rows) {
    const parsed = revocationAnswer.safeParse(row);
    if (parsed.success && parsed.data.index > index) return parsed.data;
  }
  return null;
}

/** An answer goes to an inbox, never to a subject that a replica or a service listens on. */
function checkRequest({ answerTo, query }: z.infer<typeof confirmRequest>): void {
  if (!/^_INBOX\.[A-Za-z0-9_.-]+$/.test(answerTo)) {
    throw new ShardpactError("invalid_argument", "answerTo must be an inbox (_INBOX.…)");
  }
  if (query.kind === "object" || (query.kind === "pages" && query.packed)) {
    throw new ShardpactError(
      "invalid_argument",
      "objects and leaves are read and checked by their digest, not confirmed",
    );
  }
}
