/**
 * Owns the count of signed answers to one nonce: which are genuine, and when a majority said the same bytes. Pure.
 *
 * An answer counts when its signature verifies under a key of the trusted configuration, or of the configuration that
 * it states itself. A verdict needs both: a majority of a trusted configuration (authenticity) and a majority of the
 * stated one, in both halves if it is joint (agreement, Raft thesis §4.3). Learners are in neither.
 * Answers that contradict each other at one (term, index) are divergence; at different ones they are only a race.
 */
import {
  agreedPart,
  confirmAnswer,
  decodeApi,
  ownPart,
  type AgreedPart,
  type MemberInfo,
  type OwnPart,
} from "../model/api.ts";
import { toHex } from "../model/bytes.ts";
import { LIMITS } from "../model/limits.ts";
import { verify } from "../model/keys.ts";
import { hashAs } from "../merkle/hash.ts";
import type { TrustedConfiguration } from "./session.ts";

/** Messages looked at for one nonce: signature checks cost time, and anybody may write to an inbox. */
const MESSAGES_MAX = 32 * LIMITS.votersMax;

interface Genuine {
  readonly replica: string;
  readonly publicKey: string;
  readonly bytes: string;
  readonly agreed: AgreedPart;
  readonly own: OwnPart;
}

export interface Agreement {
  readonly agreed: AgreedPart;
  /** Replicas that said these bytes. */
  readonly replicas: readonly string[];
  readonly laterRevocation: OwnPart["laterRevocation"];
}

type Verdict =
  | {
      readonly kind: "agreed";
      readonly agreement: Agreement;
      readonly diverged: readonly string[];
      /** What the majority said, in hex. */
      readonly bytes: string;
    }
  /** Genuine answers contradict each other and no majority is possible any more. */
  | { readonly kind: "diverged"; readonly answers: readonly { readonly replica: string; readonly chain: string }[] }
  | { readonly kind: "pending" };

export interface Tally {
  /** Takes one message of the inbox. Whatever is not a genuine answer to this nonce is counted and ignored. */
  add(message: Uint8Array): void;
  verdict(): Verdict;
  /** Replicas with a genuine answer. */
  answered(): readonly string[];
  /** How many replicas there is nothing more to learn from: those, and once there is a majority those that repeat its words. */
  heard(): number;
  /** Why messages were ignored, with counts. */
  ignored(): Readonly<Record<string, number>>;
}

export interface Expected {
  readonly nonce: string;
  readonly groupId: string;
  readonly trusted: TrustedConfiguration;
}

export function startTally(expected: Expected): Tally {
  const genuine: Genuine[] = [];
  const ignored: Record<string, number> = {};
  const repeating = new Set<string>();
  let agreed: string | null = null;
  let messages = 0;

  const ignore = (why: string) => {
    ignored[why] = (ignored[why] ?? 0) + 1;
  };
  return {
    add: (message) => {
      if (++messages > MESSAGES_MAX) return ignore("too many messages");
      const claimed = readAnswer(message, expected);
      if (typeof claimed === "string") return ignore(claimed);
      // Whoever says what the majority has said adds nothing: not worth a signature check.
      if (claimed.bytes === agreed) return void repeating.add(claimed.own.replica);
      const answer = checkSignature(claimed);
      if (answer === null) return ignore("bad signature");
      if (genuine.some((g) => g.replica === answer.replica && g.bytes === answer.bytes)) return ignore("duplicate");
      genuine.push(answer);
    },
    verdict: () => {
      const verdict = judge(genuine, expected.trusted);
      if (verdict.kind === "agreed") agreed = verdict.bytes;
      return verdict;
    },
    answered: () => [...new Set(genuine.map((g) => g.replica))].sort(),
    heard: () => new Set([...genuine.map((g) => g.replica), ...repeating]).size,
    ignored: () => ignored,
  };
}

/** An answer as it claims to be, with the keys that may have signed it. */
interface Claimed {
  readonly bytes: string;
  readonly agreed: AgreedPart;
  readonly own: OwnPart;
  readonly keys: ReadonlySet<string>;
  readonly signed: { readonly agreed: Uint8Array; readonly own: Uint8Array; readonly signature: Uint8Array };
}

/** An answer to this question in the name of a voter, or why it is none. */
function readAnswer(message: Uint8Array, expected: Expected): Claimed | string {
  let agreed: AgreedPart;
  let own: OwnPart;
  let signed: Claimed["signed"];
  try {
    signed = decodeApi(confirmAnswer, message);
    agreed = agreedPart.parse(JSON.parse(new TextDecoder().decode(signed.agreed)));
    own = ownPart.parse(JSON.parse(new TextDecoder().decode(signed.own)));
  } catch {
    return "malformed";
  }
  if (agreed.nonce !== expected.nonce) return "another nonce";
  if (agreed.groupId !== expected.groupId) return "another group";
  const keys = new Set<string>();
  for (const half of [expected.trusted.voters, expected.trusted.votersOutgoing, agreed.voters, agreed.votersOutgoing]) {
    for (const member of half) if (member.id === own.replica) keys.add(member.publicKey);
  }
  return keys.size === 0 ? "not a voter" : { bytes: toHex(signed.agreed), agreed, own, keys, signed };
}

function checkSignature({ bytes, agreed, own, keys, signed }: Claimed): Genuine | null {
  const digest = hashAs("answer", signed.agreed, signed.own);
  for (const publicKey of keys) {
    if (verify(publicKey, digest, signed.signature)) return { replica: own.replica, publicKey, bytes, agreed, own };
  }
  return null;
}

function judge(genuine: readonly Genuine[], trusted: TrustedConfiguration): Verdict {
  for (const bytes of new Set(genuine.map((g) => g.bytes))) {
    const saying = genuine.filter((g) => g.bytes === bytes);
    const agreed = saying[0]?.agreed;
    if (!agreed || !isQuorum(saying, agreed, trusted)) continue;
    const revoked = genuine.find((g) => g.own.laterRevocation !== null && isMember(g, trusted));
    const laterRevocation = revoked?.own.laterRevocation ?? null;
    const replicas = saying.map((g) => g.replica).sort();
    const diverged = genuine.filter((g) => g.bytes !== bytes && contradicts(g.agreed, agreed)).map((g) => g.replica);
    return {
      kind: "agreed",
      agreement: { agreed, replicas, laterRevocation },
      bytes,
      diverged: [...new Set(diverged)].sort(),
    };
  }
  return isSplit(genuine, trusted)
    ? { kind: "diverged", answers: genuine.map((g) => ({ replica: g.replica, chain: g.agreed.chain })) }
    : { kind: "pending" };
}

function isQuorum(saying: readonly Genuine[], agreed: AgreedPart, trusted: TrustedConfiguration): boolean {
  const authentic =
    hasMajority(saying, trusted.voters) ||
    (trusted.votersOutgoing.length > 0 && hasMajority(saying, trusted.votersOutgoing));
  const joint = agreed.votersOutgoing.length > 0;
  return authentic && hasMajority(saying, agreed.voters) && (!joint || hasMajority(saying, agreed.votersOutgoing));
}

function hasMajority(saying: readonly Genuine[], half: readonly MemberInfo[]): boolean {
  const members = new Map(half.map((m) => [m.id, m.publicKey]));
  const count = new Set(saying.filter((g) => members.get(g.replica) === g.publicKey).map((g) => g.replica)).size;
  return members.size > 0 && count > members.size / 2;
}

function isMember(answer: Genuine, trusted: TrustedConfiguration): boolean {
  return [...trusted.voters, ...trusted.votersOutgoing].some(
    (m) => m.id === answer.replica && m.publicKey === answer.publicKey,
  );
}

/** True when contradicting answers are there and the trusted voters not heard yet can't make any of them a majority. */
function isSplit(genuine: readonly Genuine[], trusted: TrustedConfiguration): boolean {
  const known = genuine.filter((g) => isMember(g, trusted));
  if (!known.some((a) => known.some((b) => a.bytes !== b.bytes && contradicts(a.agreed, b.agreed)))) return false;
  const voters = new Set(trusted.voters.map((m) => m.id));
  const heard = new Set(known.map((g) => g.replica));
  const unheard = [...voters].filter((id) => !heard.has(id)).length;
  const sizes = [...new Set(known.map((g) => g.bytes))].map((b) => known.filter((g) => g.bytes === b).length);
  return Math.max(...sizes) + unheard <= voters.size / 2;
}

function contradicts(a: AgreedPart, b: AgreedPart): boolean {
  return a.term === b.term && a.index === b.index;
}
