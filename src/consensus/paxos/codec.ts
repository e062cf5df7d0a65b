/**
 * Owns the bytes of Multi-Paxos messages: version u8 · kind u8 · ballot u64 · the fields of the kind, all little-endian.
 *
 *   accept:  previousIndex u64 · commit u64 · count u32 · count × (kind u8 · length u32 · payload)
 *   promise: asked u64 · pre u8 · granted u8 · from u64 · lastIndex u64 · commit u64 · count u32 ·
 *            count × (ballot u64 · kind u8 · length u32 · payload)
 *   point:   present u8 · index u64 · length u8 · chain
 *
 * The one thing to know: decode takes bytes from anybody and throws `malformed_message` for everything that encode
 * would not have written. Payloads are copied once by encode and not at all by decode: they are views into the message.
 */
import type { AppliedPoint, Entry, EntryKind } from "../engine.ts";
import { invariant } from "../shared/fault.ts";
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
} from "../shared/wire.ts";
import type { MessageKind, PaxosMessage, Promised } from "./messages.ts";

const VERSION = 1;
const HEADER_BYTES = 10;
const VALUE_HEADER_BYTES = 5;
const BALLOT_BYTES = 8;
const CHAIN_BYTES_MAX = 255;

/** Position is the code on the wire: append only. */
const KINDS: readonly MessageKind[] = [
  "prepare",
  "promise",
  "accept",
  "accepted",
  "gap",
  "heartbeat",
  "heartbeat_reply",
  "refused",
  "hand_over",
  "halt",
  "removed",
];
const ENTRY_KINDS: readonly EntryKind[] = ["noop", "config", "command"];

/** @throws ConsensusError `malformed_message` when a field is out of the range of the wire */
export function encodeMessage(message: PaxosMessage): Uint8Array {
  const writer = createWriter(sizeOf(message));
  writeU8(writer, VERSION);
  writeU8(writer, KINDS.indexOf(message.kind));
  writeInteger(writer, message.epoch);
  writeFields(writer, message);
  invariant(writer.at === writer.bytes.byteLength, `${message.kind} fills its ${writer.bytes.byteLength} bytes`);
  return writer.bytes;
}

/** @throws ConsensusError `malformed_message` */
export function decodeMessage(bytes: Uint8Array): PaxosMessage {
  const reader = createReader(bytes);
  const version = readU8(reader);
  if (version !== VERSION) throw malformed(`version ${version}, this build speaks ${VERSION}`);
  const code = readU8(reader);
  const kind = KINDS[code];
  if (kind === undefined) throw malformed(`kind ${code}`);
  const message = readFields(reader, kind, readInteger(reader));
  if (remaining(reader) !== 0) throw malformed(`${remaining(reader)} bytes after the end`);
  return message;
}

function sizeOf(message: PaxosMessage): number {
  switch (message.kind) {
    case "prepare":
      return HEADER_BYTES + 18;
    case "promise":
      return HEADER_BYTES + 38 + valuesSize(message.entries, BALLOT_BYTES);
    case "accept":
      return HEADER_BYTES + 20 + valuesSize(message.entries, 0);
    case "accepted":
      return HEADER_BYTES + 9;
    case "gap":
      return HEADER_BYTES + 17;
    case "heartbeat":
      return HEADER_BYTES + 16 + pointSize(message.applied);
    case "heartbeat_reply":
      return HEADER_BYTES + 17 + pointSize(message.applied);
    case "halt":
      return HEADER_BYTES + pointSize(message.point);
    case "removed":
      return HEADER_BYTES + 8;
    case "refused":
    case "hand_over":
      return HEADER_BYTES;
  }
}

function writeFields(writer: Writer, message: PaxosMessage): void {
  switch (message.kind) {
    case "prepare":
      writeU8(writer, Number(message.pre));
      writeU8(writer, Number(message.handOver));
      writeInteger(writer, message.from);
      return writeInteger(writer, message.lastIndex);
    case "promise":
      writeInteger(writer, message.asked);
      writeU8(writer, Number(message.pre));
      writeU8(writer, Number(message.granted));
      writeInteger(writer, message.from);
      writeInteger(writer, message.lastIndex);
      writeInteger(writer, message.commit);
      return writeValues(writer, message.entries, true);
    case "accept":
      writeInteger(writer, message.previousIndex);
      writeInteger(writer, message.commit);
      return writeValues(writer, message.entries, false);
    case "accepted":
      writeInteger(writer, message.match);
      return writeU8(writer, Number(message.voting));
    case "gap":
      writeInteger(writer, message.previousIndex);
      writeInteger(writer, message.match);
      return writeU8(writer, Number(message.voting));
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
    case "removed":
      return writeInteger(writer, message.index);
    case "refused":
    case "hand_over":
  }
}

function readFields(reader: Reader, kind: MessageKind, epoch: number): PaxosMessage {
  switch (kind) {
    case "prepare": {
      const [pre, handOver] = [readBoolean(reader), readBoolean(reader)];
      return { kind, epoch, pre, handOver, from: readInteger(reader), lastIndex: readInteger(reader) };
    }
    case "promise":
      return readPromise(reader, epoch);
    case "accept": {
      const [previousIndex, commit] = [readInteger(reader), readInteger(reader)];
      return { kind, epoch, previousIndex, commit, entries: readValues(reader, previousIndex + 1, () => epoch) };
    }
    case "accepted":
      return { kind, epoch, match: readInteger(reader), voting: readBoolean(reader) };
    case "gap": {
      const [previousIndex, match] = [readInteger(reader), readInteger(reader)];
      return { kind, epoch, previousIndex, match, voting: readBoolean(reader) };
    }
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
    case "removed":
      return { kind, epoch, index: readInteger(reader) };
    case "refused":
    case "hand_over":
      return { kind, epoch };
  }
}

function readPromise(reader: Reader, epoch: number): Promised {
  const asked = readInteger(reader);
  const [pre, granted] = [readBoolean(reader), readBoolean(reader)];
  const [from, lastIndex, commit] = [readInteger(reader), readInteger(reader), readInteger(reader)];
  const entries = readValues(reader, from, () => {
    const ballot = readInteger(reader);
    if (ballot === 0 || ballot > epoch) throw malformed(`a value of ballot ${ballot}, promised is ${epoch}`);
    return ballot;
  });
  if (entries.length > 0 && from + entries.length - 1 > lastIndex) throw malformed("values beyond the last slot");
  return { kind: "promise", epoch, asked, pre, granted, from, lastIndex, commit, entries };
}

function valuesSize(entries: readonly Entry[], perValue: number): number {
  let size = entries.length * (VALUE_HEADER_BYTES + perValue);
  for (const { payload } of entries) size += payload.byteLength;
  return size;
}

function writeValues(writer: Writer, entries: readonly Entry[], withBallot: boolean): void {
  writeU32(writer, entries.length);
  for (const { epoch, kind, payload } of entries) {
    if (withBallot) writeInteger(writer, epoch);
    writeU8(writer, ENTRY_KINDS.indexOf(kind));
    writeU32(writer, payload.byteLength);
    writeBytes(writer, payload);
  }
}

function readValues(reader: Reader, first: number, ballotOf: () => number): Entry[] {
  const count = readU32(reader);
  if (count * VALUE_HEADER_BYTES > remaining(reader)) throw malformed(`${count} values do not fit`);
  const entries: Entry[] = [];
  for (let i = 0; i < count; i += 1) {
    const epoch = ballotOf();
    const kindCode = readU8(reader);
    const kind = ENTRY_KINDS[kindCode];
    if (kind === undefined) throw malformed(`entry kind ${kindCode}`);
    const payload = readBytes(reader, readU32(reader));
    if (kind === "noop" && payload.byteLength > 0) throw malformed("a noop with a payload");
    entries.push({ index: first + i, epoch, kind, payload });
  }
  return entries;
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
