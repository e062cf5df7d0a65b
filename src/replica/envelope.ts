/**
 * Owns the bytes around every message between replicas: which group, who sends, in which life, to whom.
 *
 *   u8 version = 1 · u8 kind · u32 life · f64 clock ms · f64 boot · f64 last durable index · f64 its epoch ·
 *   f64 durable epoch · u8 voting · 16 B group id prefix · from · incarnation · to · incarnation of `to` ("": not known) · body
 * Integers are little-endian; texts are one length byte and Latin-1. The figures ride on every message so that a peer
 * can tell when a database has gone back behind what it promised, without a protocol of its own.
 */
import { parseDigest } from "../model/bytes.ts";
import { ShardpactError } from "../model/errors.ts";

export const PEER_KINDS = {
  /** A message of the engine. */
  engine: 1,
  /** "I have started": no body. */
  hello: 2,
  /** "Go on": JSON of the boot and life that said hello. */
  welcome: 3,
  /** "Your database has lost promises": JSON of `lostBody`. */
  lost: 4,
  /** The leader forwards a confirmation. */
  confirm: 5,
  /** A follower asks the leader how far it must have applied to read, and the answer (read-index.ts). */
  read_index: 16,
  read_at: 17,
  /** What the log came to at an index (state-digests.ts). */
  digest: 18,
} as const;
export type PeerKind = keyof typeof PEER_KINDS;

/** What a replica holds durably: it must never go back. */
export interface DurablePoint {
  readonly lastIndex: number;
  readonly lastEpoch: number;
  readonly epoch: number;
}

export interface PeerHeader {
  readonly kind: PeerKind;
  readonly from: string;
  readonly incarnation: string;
  readonly boot: number;
  /** Random per boot and process: tells two lives with the same boot number apart. */
  readonly life: number;
  readonly to: string;
  readonly toIncarnation: string;
  readonly clockMs: number;
  readonly durable: DurablePoint;
  /** The sender takes itself for one that votes and counts. */
  readonly voting: boolean;
}

const VERSION = 1;
const GROUP_BYTES = 16;
const VOTING_AT = 46;
const GROUP_AT = VOTING_AT + 1;
const TEXTS_AT = GROUP_AT + GROUP_BYTES;
const KIND_OF = new Map<number, PeerKind>(Object.entries(PEER_KINDS).map(([name, code]) => [code, name as PeerKind]));

export interface EnvelopeCodec {
  encode(header: PeerHeader, body: Uint8Array): Uint8Array;
  /** `body` is a view into `bytes`. @throws ShardpactError `invalid_argument` on anything that is not this group's */
  decode(bytes: Uint8Array): { readonly header: PeerHeader; readonly body: Uint8Array };
}

export function createEnvelopeCodec(groupId: string): EnvelopeCodec {
  const group = Buffer.from(parseDigest(groupId).subarray(0, GROUP_BYTES));

  function encode(header: PeerHeader, body: Uint8Array): Uint8Array {
    const texts = [header.from, header.incarnation, header.to, header.toIncarnation];
    let length = TEXTS_AT + body.byteLength;
    for (const text of texts) length += 1 + text.length;
    const out = Buffer.allocUnsafe(length);
    out[0] = VERSION;
    out[1] = PEER_KINDS[header.kind];
    out.writeUInt32LE(header.life, 2);
    out.writeDoubleLE(header.clockMs, 6);
    out.writeDoubleLE(header.boot, 14);
    out.writeDoubleLE(header.durable.lastIndex, 22);
    out.writeDoubleLE(header.durable.lastEpoch, 30);
    out.writeDoubleLE(header.durable.epoch, 38);
    out[VOTING_AT] = header.voting ? 1 : 0;
    group.copy(out, GROUP_AT);
    let at = TEXTS_AT;
    for (const text of texts) {
      out[at] = text.length;
      at += 1 + out.write(text, at + 1, "latin1");
    }
    out.set(body, at);
    return out;
  }

  function decode(bytes: Uint8Array): { header: PeerHeader; body: Uint8Array } {
    const view = Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength);
    if (view.length < TEXTS_AT) throw malformed("it is too short");
    if (view[0] !== VERSION) throw malformed(`version ${view[0]} is not known to this build`);
    const kind = KIND_OF.get(view[1] ?? 0);
    if (!kind) throw malformed(`kind ${view[1]} is not known to this build`);
    if (group.compare(view, GROUP_AT, TEXTS_AT) !== 0) throw malformed("it is of another group");
    const texts: string[] = [];
    let at = TEXTS_AT;
    for (let i = 0; i < 4; i++) {
      const end = at + 1 + (view[at] ?? Infinity);
      if (end > view.length) throw malformed("a text runs over its end");
      texts.push(view.toString("latin1", at + 1, end));
      at = end;
    }
    const [from = "", incarnation = "", to = "", toIncarnation = ""] = texts;
    const header: PeerHeader = {
      kind,
      from,
      incarnation,
      to,
      toIncarnation,
      life: view.readUInt32LE(2),
      clockMs: view.readDoubleLE(6),
      boot: view.readDoubleLE(14),
      durable: {
        lastIndex: view.readDoubleLE(22),
        lastEpoch: view.readDoubleLE(30),
        epoch: view.readDoubleLE(38),
      },
      voting: view[VOTING_AT] !== 0,
    };
    return { header, body: bytes.subarray(at) };
  }

  return { encode, decode };
}

function malformed(why: string): ShardpactError {
  return new ShardpactError("invalid_argument", `a peer's message was dropped: ${why}`);
}
