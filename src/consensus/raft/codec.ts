/**
 * Owns the bytes of Raft's messages: version u8 · kind u8 · epoch u64 · the fields of the kind, all little-endian.
 *
 *   append: previousIndex u64 · previousEpoch u64 · commit u64 · count u32 · count × (epoch u64 · kind u8 · length u32 · payload)
 *   point:  present u8 · index u64 · length u8 · chain
 *
 * The one thing to know: decode takes bytes from anybody and throws `malformed_message` for everything that encode
 * would not have written; what it returns is well formed (contiguous entries, rising epochs). Payloads are copied once
 * by encode and not at all by decode: they are views into the message.
 */
import type { AppliedPoint, Entry, EntryKind } from "../engine.ts";
import { invariant } from "../shared/fault.ts";
import type { Append, MessageKind, RaftMessage } from "./messages.ts";
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

const VERSION = 1;
const HEADER_BYTES = 10;
const ENTRY_HEADER_BYTES = 13;
const CHAIN_BYTES_MAX = 255;

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
const ENTRY_KINDS: readonly EntryKind[] = ["noop", "config", "command"];

/** @throws ConsensusError `malformed_message` when a field is out of the range of the wire */
export function encodeMessage(message: RaftMessage): Uint8Array {
  const writer = createWriter(sizeOf(message));
  writeU8(writer, VERSION);
  writeU8(writer, KINDS.indexOf(message.kind));
  writeInteger(writer, message.epoch);
  writeFields(writer, message);
  invariant(writer.at === writer.bytes.byteLength, `${message.kind} fills its ${writer.bytes.byteLength} bytes`);
  return writer.bytes;
}

/** @throws ConsensusError `malformed_message` */
export function decodeMessage(bytes: Uint8Array): RaftMessage {
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

function sizeOf(message: RaftMessage): number {
  switch (message.kind) {
    case "vote_request":
      return HEADER_BYTES + 18;
    case "vote_reply":
      return HEADER_BYTES + 10;
    case "append": {
      let size = HEADER_BYTES + 28 + message.entries.length * ENTRY_HEADER_BYTES;
      for (const { payload } of message.entries) size += payload.byteLength;
      return size;
    }
    case "append_accepted":
      return HEADER_BYTES + 9;
    case "append_rejected":
      return HEADER_BYTES + 25;
    case "heartbeat":
      return HEADER_BYTES + 16 + pointSize(message.applied);
    case "heartbeat_reply":
      return HEADER_BYTES + 17 + pointSize(message.applied);
    case "halt":
      return HEADER_BYTES + pointSize(message.point);
    case "removed":
      return HEADER_BYTES + 16;
    case "stale":
    case "timeout_now":
      return HEADER_BYTES;
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
    writeU8(writer, ENTRY_KINDS.indexOf(entry.kind));
    writeU32(writer, entry.payload.byteLength);
    writeBytes(writer, entry.payload);
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
    const kindCode = readU8(reader);
    const kind = ENTRY_KINDS[kindCode];
    if (kind === undefined) throw malformed(`entry kind ${kindCode}`);
    const payload = readBytes(reader, readU32(reader));
    if (kind === "noop" && payload.byteLength > 0) throw malformed("a noop with a payload");
    entries.push({ index: previousIndex + i, epoch: entryEpoch, kind, payload });
  }
  return { kind: "append", epoch, previousIndex, previousEpoch, commit, entries };
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
