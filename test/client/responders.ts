/**
 * Replicas as a client sees them: they answer discovery, confirmations, reads and proposals over a memory bus, signed
 * with real keys. What a test wants to go wrong it says per replica (`tamper`, `down`), nothing else is simulated.
 */
import { randomBytes } from "node:crypto";
import {
  confirmRequest,
  decodeApi,
  encodeApi,
  readRequest,
  SUBJECTS,
  type AgreedPart,
  type CatalogAnswer,
  type CatalogQuery,
  type Genesis,
  type MemberInfo,
  type OwnPart,
  type ProposeReply,
} from "../../src/model/api.ts";
import { toHex, utf8 } from "../../src/model/bytes.ts";
import { canonicalJson, decodeCommand, type Command } from "../../src/model/commands.ts";
import { createSeed, publicKeyHex, sign } from "../../src/model/keys.ts";
import { hashAs } from "../../src/merkle/hash.ts";
import { createSession, type Notice, type Session } from "../../src/client/session.ts";
import { groupIdOf } from "../../src/client/discover.ts";
import { REAL_TIMING } from "../../src/client/timing.ts";
import { createMemoryBus, type MemoryBus } from "../../src/transport/memory.ts";
import type { Transport } from "../../src/transport/port.ts";

export interface Said {
  agreed: AgreedPart;
  own: OwnPart;
  /** Key to sign with, when it is not the replica's. */
  seed?: string;
}

export interface Responder {
  readonly id: string;
  readonly seed: string;
  readonly member: MemberInfo;
  readonly transport: Transport;
  down: boolean;
  /** Changes what this replica says before it signs; null: it stays silent. */
  tamper: ((said: Said) => Said | null) | null;
  answerRead: ((query: CatalogQuery) => CatalogAnswer) | null;
  answerPropose: ((command: Command, bytes: Uint8Array) => ProposeReply | null) | null;
}

export interface Responders {
  readonly bus: MemoryBus;
  readonly genesis: Genesis;
  readonly groupId: string;
  readonly replicas: readonly Responder[];
  readonly notices: Notice[];
  leader: string | null;
  index: number;
  chain: string;
  configuration: AgreedPart["configuration"];
  voters: readonly MemberInfo[];
  votersOutgoing: readonly MemberInfo[];
  answer: (query: CatalogQuery) => CatalogAnswer;
  /** Nonces asked for so far. */
  readonly nonces: string[];
  session(): Session;
}

export function startResponders(count: number, name = "test"): Responders {
  const bus = createMemoryBus();
  const keyed = Array.from({ length: count }, (_, i) => ({ id: `r${i + 1}`, seed: createSeed() }));
  const members = keyed.map(({ id, seed }) => ({ id, publicKey: publicKeyHex(seed) }));
  const nonce = toHex(randomBytes(16));
  const genesis: Genesis = {
    format: "shardpact-group/1",
    name,
    nonce,
    engine: "raft",
    catalogLevel: 1,
    voters: members,
  };
  const groupId = groupIdOf(genesis);
  const replicas = keyed.map(({ id, seed }, i): Responder => {
    const member = members[i] ?? { id, publicKey: "" };
    const transport = bus.connect(id);
    return { id, seed, member, transport, down: false, tamper: null, answerRead: null, answerPropose: null };
  });
  const all: Responders = {
    bus,
    genesis,
    groupId,
    replicas,
    notices: [],
    leader: "r1",
    index: 7,
    chain: "c".repeat(64),
    configuration: { index: 1, number: 0, digest: groupId },
    voters: members,
    votersOutgoing: [],
    answer: () => ({ kind: "rows", rows: [{ name: "mnist" }] }),
    nonces: [],
    session: () =>
      createSession({
        transport: bus.connect("client"),
        timing: REAL_TIMING,
        discovered: { group: name, groupId, genesis, leader: all.leader, stores: [] },
        actor: "tester",
        onNotice: (notice) => all.notices.push(notice),
      }),
  };
  for (const replica of replicas) serve(all, replica);
  return all;
}

function serve(all: Responders, replica: Responder): void {
  const { transport, id } = replica;
  const reply = (to: string | null, value: unknown) => to && transport.publish(to, encodeApi(value));
  const group = all.genesis.name;
  transport.subscribe(SUBJECTS.discover, ({ reply: to }) => {
    if (replica.down) return;
    const { genesis, groupId, leader } = all;
    reply(to, { group, groupId, replica: id, leader, genesis, stores: [`file:///stores/${id}`] });
  });
  transport.subscribe(SUBJECTS.api(group, id, "confirm"), ({ data, reply: to }) => {
    if (replica.down) return;
    if (all.leader !== id) {
      return reply(to, { ok: false, error: { code: "not_leader", message: "not leading" }, leader: all.leader });
    }
    const request = decodeApi(confirmRequest, data);
    all.nonces.push(request.nonce);
    for (const voter of all.replicas) answerConfirm(all, voter, request);
  });
  transport.subscribe(SUBJECTS.api(group, id, "read"), ({ data, reply: to }) => {
    if (replica.down) return;
    const { query } = decodeApi(readRequest, data);
    reply(to, { ok: true, applied: all.index, answer: (replica.answerRead ?? all.answer)(query) });
  });
  transport.subscribe(SUBJECTS.api(group, id, "propose"), ({ data, reply: to }) => {
    if (replica.down || !replica.answerPropose) return;
    const answer = replica.answerPropose(decodeCommand(data), data);
    if (answer) reply(to, answer);
  });
}

function answerConfirm(
  all: Responders,
  voter: Responder,
  request: { nonce: string; query: CatalogQuery; answerTo: string },
): void {
  if (voter.down) return;
  const said: Said = {
    agreed: {
      nonce: request.nonce,
      groupId: all.groupId,
      term: 3,
      index: all.index,
      chain: all.chain,
      configuration: all.configuration,
      voters: [...all.voters],
      votersOutgoing: [...all.votersOutgoing],
      answer: all.answer(request.query),
    },
    own: { replica: voter.id, boot: 1, applied: all.index, laterRevocation: null },
  };
  const tampered = voter.tamper ? voter.tamper(said) : said;
  if (tampered) voter.transport.publish(request.answerTo, signedAnswer(tampered, voter.seed));
}

/** Bytes of a confirm answer, signed as replicas sign. */
export function signedAnswer({ agreed, own, seed }: Said, replicaSeed: string): Uint8Array {
  const agreedBytes = utf8(canonicalJson(agreed));
  const ownBytes = utf8(canonicalJson(own));
  const signature = sign(seed ?? replicaSeed, hashAs("answer", agreedBytes, ownBytes));
  return encodeApi({ agreed: agreedBytes, own: ownBytes, signature });
}
