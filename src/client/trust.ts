/**
 * Owns how a client's trust follows a group that changed its members while nobody looked: from the configuration that it
 * trusts, link by link, to the newest that is proven. Any replica may hand the links out; none is believed.
 *
 * A link is proven by a quorum of the voters before it (`merkle/certificate.ts`). A client that keeps asking needs none of
 * this: what a majority of the voters that it trusts signs names the configuration, and is followed (`session.ts`).
 */
import { z } from "zod";
import { decodeApi, discoverReply, encodeApi, readReply, SUBJECTS, type ReadRequest } from "../model/api.ts";
import { utf8 } from "../model/bytes.ts";
import { isShardpactError, ShardpactError } from "../model/errors.ts";
import { isReplicaId } from "../model/names.ts";
import { LIMITS } from "../model/limits.ts";
import { type ConfigurationLink, followLink } from "../merkle/certificate.ts";
import { readConfiguration } from "../merkle/configuration.ts";
import { errorOf, expectAnswer } from "./answers.ts";
import type { Session, TrustedConfiguration } from "./session.ts";
import { requestOptions, type Deadline } from "./timing.ts";

const configRow = z.object({
  index: z.number().int().positive(),
  kind: z.literal("config"),
  chain: z.string().regex(/^[0-9a-f]{64}$/),
  payload: z.string(),
});
const signatureRow = z.object({
  kind: z.literal("configuration.sign"),
  body: z.object({ index: z.number(), configuration: z.string(), replica: z.string(), signature: z.string() }),
});

const PAGE_ROWS = 256;
/** More than a group has changed its members in years; a replica that answers more is not listened to. */
const ROWS_MAX = 16_384;
/** One that is paused must not hold up the question. */
const ANSWER_MS = 500;
const GATHER_MS = 250;

/**
 * Asks everybody that is known, the voters of each configuration that is proven on the way too, until one of the number
 * `wanted` is trusted (left out: as far as it goes). Resolves with whether the trust moved. @throws ShardpactError `aborted`
 */
export async function followConfigurations(
  session: Session,
  deadline: Deadline,
  wanted = Number.POSITIVE_INFINITY,
): Promise<boolean> {
  const from = session.trusted().number;
  const asked = new Set<string>();
  const leader = session.leader();
  let ids = [...(leader === null ? [] : [leader]), ...session.askingOrder()];
  for (let discovered = false; ;) {
    const next = ids.find((id) => !asked.has(id));
    if (session.trusted().number >= wanted || deadline.remainingMs() === 0) break;
    if (next !== undefined) {
      deadline.throwIfAborted();
      asked.add(next);
      if (await followFrom(session, next, deadline)) ids = [...session.replicas(), ...ids];
    } else if (session.trusted().number === from && !discovered) {
      // Nobody whom this client knows can tell: whoever is there now may.
      discovered = true;
      ids = [...(await whoAnswers(session, deadline))];
    } else {
      break;
    }
  }
  return session.trusted().number > from;
}

/** As far as one replica can prove; whether that was further. One that can't be asked, or whose chain is broken, proves nothing. */
async function followFrom(session: Session, replica: string, deadline: Deadline): Promise<boolean> {
  const from = session.trusted().number;
  const moved = (): boolean => session.trusted().number > from;
  try {
    for (const link of await linksOf(session, replica, deadline)) {
      const trusted = session.trusted();
      if (readConfiguration(link.payload).number <= trusted.number) continue;
      const next = followLink(trusted, session.groupId, link);
      if (next === null) break;
      const { number, digest, voters, votersOutgoing } = next;
      session.trust({ index: link.index, number, digest, voters, votersOutgoing }, link.chain);
    }
  } catch (error) {
    if (isShardpactError(error, "aborted") || isShardpactError(error, "closed")) throw error;
    if (!isShardpactError(error, "group_forked")) return moved(); // not there, or not one of ours
    session.notice({
      code: "replica_bad_bytes",
      message: `replica ${replica} gave a history of the membership that does not follow from what is trusted: ${error.message}`,
      details: { replica, ...error.details },
    });
  }
  return moved();
}

/** What a replica says of the configurations after the trusted one, in the order of the log. */
async function linksOf(session: Session, replica: string, deadline: Deadline): Promise<readonly ConfigurationLink[]> {
  const links = new Map<number, ConfigurationLink & { signatures: { replica: string; signature: string }[] }>();
  let after = firstIndex(session, session.trusted());
  for (let seen = 0; seen < ROWS_MAX;) {
    const rows = await page(session, replica, after, deadline);
    for (const row of rows) {
      const config = configRow.safeParse(row);
      const signed = signatureRow.safeParse(row);
      if (config.success) {
        const { index, chain, payload } = config.data;
        links.set(index, { index, chain, payload: utf8(payload), signatures: [] });
      } else if (signed.success) {
        const { index, replica: signer, signature } = signed.data.body;
        links.get(index)?.signatures.push({ replica: signer, signature });
      }
    }
    const last = z.object({ index: z.number().int() }).safeParse(rows.at(-1));
    if (rows.length < PAGE_ROWS || !last.success || last.data.index <= after) break;
    seen += rows.length;
    after = last.data.index;
  }
  return [...links.values()].toSorted((a, b) => a.index - b.index);
}

/** A recovered group's ledger begins with its parent's configurations. */
function firstIndex(session: Session, trusted: TrustedConfiguration): number {
  return Math.max(trusted.index, session.genesis.parent?.index ?? 0);
}

async function page(
  session: Session,
  replica: string,
  after: number,
  deadline: Deadline,
): Promise<readonly Readonly<Record<string, unknown>>[]> {
  const query = { kind: "configurations", after, limit: PAGE_ROWS } as const;
  const request: ReadRequest = { query, asOf: null, minIndex: 0, waitMs: 0 };
  const subject = SUBJECTS.api(session.group, replica, "read");
  const options = requestOptions(deadline, ANSWER_MS);
  const reply = decodeApi(readReply, await session.transport.request(subject, encodeApi(request), options));
  if (!reply.ok) throw errorOf(reply.error);
  return expectAnswer(query, "rows", reply.answer).rows;
}

/** Ids of the replicas that answer for this group now; they are remembered as places to ask. */
export async function whoAnswers(session: Session, deadline: Deadline): Promise<readonly string[]> {
  const found = new Set<string>();
  const inbox = session.transport.inbox();
  const subscription = session.transport.subscribe(inbox, ({ data }) => {
    try {
      const { groupId, replica } = decodeApi(discoverReply, data);
      if (groupId === session.groupId && isReplicaId(replica) && found.size < 4 * LIMITS.votersMax) found.add(replica);
    } catch (error) {
      if (!isShardpactError(error)) throw new ShardpactError("internal", "a reply could not be read", { cause: error });
    }
  });
  try {
    session.transport.publish(SUBJECTS.discover, new Uint8Array(0), inbox);
    await session.timing.sleep(Math.min(GATHER_MS, deadline.remainingMs()), deadline.signal);
  } finally {
    subscription.close();
  }
  session.heardOf([...found]);
  return [...found];
}
