/**
 * Owns the bytes of Raft's messages: the fields after the header that all messages have (shared/codec.ts), all
 * little-endian. What decode returns is well formed: contiguous entries, rising epochs.
 *
 *   append: previousIndex u64 · previousEpoch u64 · commit u64 · count u32 · count × (epoch u64 · value)
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
import type { Append, MessageKind, RaftMessage } from "./messages.ts";

const ENTRY_HEADER_BYTES = 8 + VALUE_HEADER_BYTES;

/** Position is the code on the wire: append only. */
const KINDS: readonly MessageKind[] = [
  "vote_request",
  "vote_reply",
  "append",
  "append_accepted",
  "append_rejected",
  "heartbeat",
  "heartbeat_reply",
  "stale",
  "timeout_now",
  "halt",
  "removed",
];

const FIELDS: MessageFields<RaftMessage> = { kinds: KINDS, sizeOf, write: writeFields, read: readFields };

/** @throws ConsensusError `malformed_message` when a field is out of the range of the wire */
export function encodeMessage(message: RaftMessage): Uint8Array {
  return encode(FIELDS, message);
}

/** @throws ConsensusError `malformed_message` */
export function decodeMessage(bytes: Uint8Array): RaftMessage {
  return decode(FIELDS, bytes);
}

function sizeOf(message: RaftMessage): number {
  switch (message.kind) {
    case "vote_request":
      return 18;
    case "vote_reply":
      return 10;
    case "append":
      return 28 + message.entries.length * ENTRY_HEADER_BYTES + payloadBytes(message.entries);
    case "append_accepted":
      return 9;
    case "append_rejected":
      return 25;
    case "heartbeat":
    case "heartbeat_reply":
    case "halt":
      return sharedSize(message);
    case "removed":
      return 16;
    case "stale":
    case "timeout_now":
      return 0;
  }
}

function writeFields(writer: Writer, message: RaftMessage): void {
  switch (message.kind) {
    case "vote_request":
      writeU8(writer, Number(message.pre));
      writeU8(writer, Number(message.transfer));
      writeInteger(writer, message.lastIndex);
      return writeInteger(writer, message.lastEpoch);
    case "vote_reply":
      writeInteger(writer, message.requestEpoch);
      writeU8(writer, Number(message.pre));
      return writeU8(writer, Number(message.granted));
    case "append":
      return writeAppend(writer, message);
    case "append_accepted":
      writeInteger(writer, message.match);
      return writeU8(writer, Number(message.voting));
    case "append_rejected":
      writeInteger(writer, message.previousIndex);
      writeInteger(writer, message.hintIndex);
      writeInteger(writer, message.hintEpoch);
      return writeU8(writer, Number(message.voting));
    case "heartbeat":
    case "heartbeat_reply":
    case "halt":
      return writeShared(writer, message);
    case "removed":
      writeInteger(writer, message.committedIndex);
      return writeInteger(writer, message.committedEpoch);
    case "stale":
    case "timeout_now":
  }
}

function readFields(reader: Reader, kind: MessageKind, epoch: number): RaftMessage {
  switch (kind) {
    case "vote_request": {
      const [pre, transfer] = [readBoolean(reader), readBoolean(reader)];
      return { kind, epoch, pre, transfer, lastIndex: readInteger(reader), lastEpoch: readInteger(reader) };
    }
    case "vote_reply": {
      const requestEpoch = readInteger(reader);
      return { kind, epoch, requestEpoch, pre: readBoolean(reader), granted: readBoolean(reader) };
    }
    case "append":
      return readAppend(reader, epoch);
    case "append_accepted":
      return { kind, epoch, match: readInteger(reader), voting: readBoolean(reader) };
    case "append_rejected": {
      const previousIndex = readInteger(reader);
      const [hintIndex, hintEpoch] = [readInteger(reader), readInteger(reader)];
      return { kind, epoch, previousIndex, hintIndex, hintEpoch, voting: readBoolean(reader) };
    }
    case "heartbeat":
    case "heartbeat_reply":
    case "halt":
      return readShared(reader, kind, epoch);
    case "removed":
      return { kind, epoch, committedIndex: readInteger(reader), committedEpoch: readInteger(reader) };
    case "stale":
    case "timeout_now":
      return { kind, epoch };
  }
}

function writeAppend(writer: Writer, message: Append): void {
  writeInteger(writer, message.previousIndex);
  writeInteger(writer, message.previousEpoch);
  writeInteger(writer, message.commit);
  writeU32(writer, message.entries.length);
  for (const entry of message.entries) {
    writeInteger(writer, entry.epoch);
    writeValue(writer, entry);
  }
}

function readAppend(reader: Reader, epoch: number): Append {
  const previousIndex = readInteger(reader);
  const previousEpoch = readInteger(reader);
  const commit = readInteger(reader);
  const count = readU32(reader);
  if (count * ENTRY_HEADER_BYTES > remaining(reader)) throw malformed(`${count} entries do not fit`);
  if (previousEpoch > epoch || (previousIndex === 0) !== (previousEpoch === 0)) throw malformed("previous entry");
  const entries: Entry[] = [];
  let newest = Math.max(previousEpoch, 1);
  for (let i = 1; i <= count; i += 1) {
    const entryEpoch = readInteger(reader);
    if (entryEpoch < newest || entryEpoch > epoch) throw malformed(`entry epoch ${entryEpoch} after ${newest}`);
    newest = entryEpoch;
    const { kind, payload } = readValue(reader);
    entries.push({ index: previousIndex + i, epoch: entryEpoch, kind, payload });
  }
  return { kind: "append", epoch, previousIndex, previousEpoch, commit, entries };
}
