/**
 * Owns what the messages of both engines have in common on the wire: version u8 · kind u8 · epoch u64 · the fields of the
 * kind; points, values, and the messages that both engines have.
 *
 *   value: kind u8 · length u32 · payload
 *   point: present u8 · index u64 · length u8 · chain
 *
 * The one thing to know: decode takes bytes from anybody and throws `malformed_message` for everything that encode
 * would not have written. Payloads are copied once by encode and not at all by decode: they are views into the message.
 */
import type { AppliedPoint, Entry, EntryKind, Epoch } from "../engine.ts";
import { invariant } from "./fault.ts";
import type { SharedMessage } from "./messages.ts";
import {
  createReader,
  createWriter,
  encodeText,
  malformed,
  type Reader,
  readBoolean,
  readBytes,
  readInteger,
  readText,
  readU32,
  readU8,
  remaining,
  writeBytes,
  writeInteger,
  type Writer,
  writeU32,
  writeU8,
} from "./wire.ts";

const VERSION = 1;
const HEADER_BYTES = 10;
const CHAIN_BYTES_MAX = 255;
export const VALUE_HEADER_BYTES = 5;

/** Position is the code on the wire: append only. */
const ENTRY_KINDS: readonly EntryKind[] = ["noop", "config", "command"];

/** One engine's messages: their kinds by code, and what stands after the header. */
export interface MessageFields<M extends { readonly kind: string; readonly epoch: Epoch }> {
  /** Position is the code on the wire: append only. */
  readonly kinds: readonly M["kind"][];
  sizeOf(message: M): number;
  write(writer: Writer, message: M): void;
  read(reader: Reader, kind: M["kind"], epoch: Epoch): M;
}

/** @throws ConsensusError `malformed_message` when a field is out of the range of the wire */
export function encode<M extends { readonly kind: string; readonly epoch: Epoch }>(
  fields: MessageFields<M>,
  message: M,
): Uint8Array {
  const writer = createWriter(HEADER_BYTES + fields.sizeOf(message));
  writeU8(writer, VERSION);
  writeU8(writer, fields.kinds.indexOf(message.kind));
  writeInteger(writer, message.epoch);
  fields.write(writer, message);
  invariant(writer.at === writer.bytes.byteLength, `${message.kind} fills its ${writer.bytes.byteLength} bytes`);
  return writer.bytes;
}

/** @throws ConsensusError `malformed_message` */
export function decode<M extends { readonly kind: string; readonly epoch: Epoch }>(
  fields: MessageFields<M>,
  bytes: Uint8Array,
): M {
  const reader = createReader(bytes);
  const version = readU8(reader);
  if (version !== VERSION) throw malformed(`version ${version}, this build speaks ${VERSION}`);
  const code = readU8(reader);
  const kind = fields.kinds[code];
  if (kind === undefined) throw malformed(`kind ${code}`);
  const message = fields.read(reader, kind, readInteger(reader));
  if (remaining(reader) !== 0) throw malformed(`${remaining(reader)} bytes after the end`);
  return message;
}

export function sharedSize(message: SharedMessage): number {
  if (message.kind === "halt") return pointSize(message.point);
  return (message.kind === "heartbeat" ? 16 : 17) + pointSize(message.applied);
}

export function writeShared(writer: Writer, message: SharedMessage): void {
  switch (message.kind) {
    case "heartbeat":
      writeInteger(writer, message.commit);
      writeInteger(writer, message.round);
      return writePoint(writer, message.applied);
    case "heartbeat_reply":
      writeInteger(writer, message.round);
      writeInteger(writer, message.commit);
      writeU8(writer, Number(message.voting));
      return writePoint(writer, message.applied);
    case "halt":
      return writePoint(writer, message.point);
  }
}

export function readShared(reader: Reader, kind: SharedMessage["kind"], epoch: Epoch): SharedMessage {
  switch (kind) {
    case "heartbeat": {
      const [commit, round] = [readInteger(reader), readInteger(reader)];
      return { kind, epoch, commit, round, applied: readPoint(reader) };
    }
    case "heartbeat_reply": {
      const [round, commit] = [readInteger(reader), readInteger(reader)];
      const voting = readBoolean(reader);
      return { kind, epoch, round, commit, voting, applied: readPoint(reader) };
    }
    case "halt": {
      const point = readPoint(reader);
      if (point === null) throw malformed("halt without a point");
      return { kind, epoch, point };
    }
  }
}

export function payloadBytes(entries: readonly Entry[]): number {
  let size = 0;
  for (const { payload } of entries) size += payload.byteLength;
  return size;
}

export function writeValue(writer: Writer, { kind, payload }: Pick<Entry, "kind" | "payload">): void {
  writeU8(writer, ENTRY_KINDS.indexOf(kind));
  writeU32(writer, payload.byteLength);
  writeBytes(writer, payload);
}

export function readValue(reader: Reader): Pick<Entry, "kind" | "payload"> {
  const code = readU8(reader);
  const kind = ENTRY_KINDS[code];
  if (kind === undefined) throw malformed(`entry kind ${code}`);
  const payload = readBytes(reader, readU32(reader));
  if (kind === "noop" && payload.byteLength > 0) throw malformed("a noop with a payload");
  return { kind, payload };
}

function pointSize(point: AppliedPoint | null): number {
  return point === null ? 1 : 10 + encodeText(point.chain).byteLength;
}

function writePoint(writer: Writer, point: AppliedPoint | null): void {
  writeU8(writer, Number(point !== null));
  if (point === null) return;
  const chain = encodeText(point.chain);
  if (chain.byteLength > CHAIN_BYTES_MAX) throw malformed(`a chain value of ${chain.byteLength} bytes`);
  writeInteger(writer, point.index);
  writeU8(writer, chain.byteLength);
  writeBytes(writer, chain);
}

function readPoint(reader: Reader): AppliedPoint | null {
  if (!readBoolean(reader)) return null;
  return { index: readInteger(reader), chain: readText(reader, readU8(reader)) };
}
