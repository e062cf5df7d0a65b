/**
 * Owns the little-endian primitives of the codec. Every read is checked against the end; every number against the
 * range that JavaScript can hold exactly.
 */
import { ConsensusError } from "./fault.ts";

const U32 = 2 ** 32;
/** Indexes and epochs on the wire: far below 2⁵³, so that arithmetic on them stays exact. */
export const WIRE_INTEGER_MAX = 2 ** 50;

const UNZEROED_BYTES_MIN = 4096;

export interface Writer {
  readonly bytes: Uint8Array;
  readonly view: DataView;
  at: number;
}

export interface Reader {
  readonly bytes: Uint8Array;
  readonly view: DataView;
  at: number;
}

const encoder = new TextEncoder();
const decoder = new TextDecoder("utf-8", { fatal: true, ignoreBOM: true });

/** Memory that the caller fills to the last byte: large messages skip the zeroing. */
export function createWriter(size: number): Writer {
  const bytes = size <= UNZEROED_BYTES_MIN ? new Uint8Array(size) : Buffer.allocUnsafeSlow(size);
  return { bytes, view: new DataView(bytes.buffer, bytes.byteOffset, size), at: 0 };
}

export function createReader(bytes: Uint8Array): Reader {
  return { bytes, view: new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength), at: 0 };
}

export function malformed(what: string): ConsensusError {
  return new ConsensusError("malformed_message", `malformed message: ${what}`);
}

export function writeU8(writer: Writer, value: number): void {
  writer.view.setUint8(writer.at, value);
  writer.at += 1;
}

export function writeU32(writer: Writer, value: number): void {
  writer.view.setUint32(writer.at, value, true);
  writer.at += 4;
}

export function writeInteger(writer: Writer, value: number): void {
  if (!Number.isInteger(value) || value < 0 || value > WIRE_INTEGER_MAX) throw malformed(`${value} cannot be written`);
  writer.view.setUint32(writer.at, value % U32, true);
  writer.view.setUint32(writer.at + 4, Math.floor(value / U32), true);
  writer.at += 8;
}

export function writeBytes(writer: Writer, bytes: Uint8Array): void {
  writer.bytes.set(bytes, writer.at);
  writer.at += bytes.byteLength;
}

export function encodeText(text: string): Uint8Array {
  return encoder.encode(text);
}

export function readU8(reader: Reader): number {
  need(reader, 1);
  reader.at += 1;
  return reader.view.getUint8(reader.at - 1);
}

export function readU32(reader: Reader): number {
  need(reader, 4);
  reader.at += 4;
  return reader.view.getUint32(reader.at - 4, true);
}

export function readInteger(reader: Reader): number {
  need(reader, 8);
  const value = reader.view.getUint32(reader.at, true) + reader.view.getUint32(reader.at + 4, true) * U32;
  if (value > WIRE_INTEGER_MAX) throw malformed(`integer out of range at byte ${reader.at}`);
  reader.at += 8;
  return value;
}

export function readBoolean(reader: Reader): boolean {
  const value = readU8(reader);
  if (value > 1) throw malformed(`${value} is no boolean at byte ${reader.at - 1}`);
  return value === 1;
}

/** A view into the message, no copy. */
export function readBytes(reader: Reader, length: number): Uint8Array {
  need(reader, length);
  reader.at += length;
  return reader.bytes.subarray(reader.at - length, reader.at);
}

export function readText(reader: Reader, length: number): string {
  const bytes = readBytes(reader, length);
  try {
    return decoder.decode(bytes);
  } catch {
    throw malformed(`text at byte ${reader.at - length} is not UTF-8`);
  }
}

export function remaining(reader: Reader): number {
  return reader.bytes.byteLength - reader.at;
}

function need(reader: Reader, length: number): void {
  if (remaining(reader) < length) throw malformed(`ends at byte ${reader.bytes.byteLength}, ${length} more expected`);
}
