/**
 * Owns the bytes of Multi-Paxos messages: the fields after the header that all messages have (shared/codec.ts), all
 * little-endian. The epoch in the header is the ballot.
 *
 *   accept:  previousIndex u64 · commit u64 · count u32 · count × value
 *   promise: asked u64 · pre u8 · granted u8 · from u64 · lastIndex u64 · commit u64 · count u32 ·
 *            count × (ballot u64 · value)
 */
import type { Entry } from "../engine.ts";
import {
  decode,
  encode,
  type MessageFields,
  payloadBytes,
  readShared,
  readValue,
  sharedSize,
  VALUE_HEADER_BYTES,
  writeShared,
  writeValue,
} from "../shared/codec.ts";
import {
  malformed,
  type Reader,
  readBoolean,
  readInteger,
  readU32,
  remaining,
  writeInteger,
  type Writer,
  writeU32,
  writeU8,
} from "../shared/wire.ts";
import type { MessageKind, PaxosMessage, Promised } from "./messages.ts";

const BALLOT_BYTES = 8;

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

const FIELDS: MessageFields<PaxosMessage> = { kinds: KINDS, sizeOf, write: writeFields, read: readFields };

/** @throws ConsensusError `malformed_message` when a field is out of the range of the wire */
export function encodeMessage(message: PaxosMessage): Uint8Array {
  return encode(FIELDS, message);
}

/** @throws ConsensusError `malformed_message` */
export function decodeMessage(bytes: Uint8Array): PaxosMessage {
  return decode(FIELDS, bytes);
}

function sizeOf(message: PaxosMessage): number {
  switch (message.kind) {
    case "prepare":
      return 18;
    case "promise":
      return 38 + valuesSize(message.entries, BALLOT_BYTES);
    case "accept":
      return 20 + valuesSize(message.entries, 0);
    case "accepted":
      return 9;
    case "gap":
      return 17;
    case "heartbeat":
    case "heartbeat_reply":
    case "halt":
      return sharedSize(message);
    case "removed":
      return 8;
    case "refused":
    case "hand_over":
      return 0;
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
    case "heartbeat_reply":
    case "halt":
      return writeShared(writer, message);
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
    case "heartbeat":
    case "heartbeat_reply":
    case "halt":
      return readShared(reader, kind, epoch);
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
  return entries.length * (VALUE_HEADER_BYTES + perValue) + payloadBytes(entries);
}

function writeValues(writer: Writer, entries: readonly Entry[], withBallot: boolean): void {
  writeU32(writer, entries.length);
  for (const entry of entries) {
    if (withBallot) writeInteger(writer, entry.epoch);
    writeValue(writer, entry);
  }
}

function readValues(reader: Reader, first: number, ballotOf: () => number): Entry[] {
  const count = readU32(reader);
  if (count * VALUE_HEADER_BYTES > remaining(reader)) throw malformed(`${count} values do not fit`);
  const entries: Entry[] = [];
  for (let i = 0; i < count; i += 1) {
    const epoch = ballotOf();
    const { kind, payload } = readValue(reader);
    entries.push({ index: first + i, epoch, kind, payload });
  }
  return entries;
}
