/**
 * Owns a buffer that is filled again and again: many small fields become one run of bytes without an array for each.
 *
 * `view()` is one that the next `start()` overwrites: hash it or copy it at once.
 */
export interface ByteWriter {
  start(): this;
  u8(value: number): this;
  u32(value: number): this;
  /** A safe integer, as eight little-endian bytes. */
  u64(value: number): this;
  /** The bytes that the hex digits stand for. */
  hex(digits: string): this;
  bytes(bytes: Uint8Array): this;
  /** u32le length ‖ UTF-8. */
  text(value: string): this;
  view(): Uint8Array;
}

const U32 = 2 ** 32;
const SIZE_FIRST = 16 * 1024;
/** A larger buffer, made for a large message, is not kept. */
const SIZE_KEPT = 1024 * 1024;

export function createByteWriter(): ByteWriter {
  let buffer = Buffer.allocUnsafeSlow(SIZE_FIRST);
  let at = 0;

  function room(size: number): void {
    if (at + size <= buffer.byteLength) return;
    const larger = Buffer.allocUnsafeSlow(Math.max(2 * buffer.byteLength, at + size));
    buffer.copy(larger, 0, 0, at);
    buffer = larger;
  }

  const writer: ByteWriter = {
    start() {
      at = 0;
      if (buffer.byteLength > SIZE_KEPT) buffer = Buffer.allocUnsafeSlow(SIZE_FIRST);
      return writer;
    },
    u8(value) {
      room(1);
      buffer[at] = value;
      at += 1;
      return writer;
    },
    u32(value) {
      room(4);
      at = buffer.writeUInt32LE(value, at);
      return writer;
    },
    u64(value) {
      room(8);
      at = buffer.writeUInt32LE(value % U32, at);
      at = buffer.writeUInt32LE(Math.floor(value / U32), at);
      return writer;
    },
    hex(digits) {
      room(digits.length / 2);
      at += buffer.write(digits, at, "hex");
      return writer;
    },
    bytes(bytes) {
      room(bytes.byteLength);
      buffer.set(bytes, at);
      at += bytes.byteLength;
      return writer;
    },
    text(value) {
      // UTF-8 takes three bytes for a UTF-16 unit at most.
      room(4 + 3 * value.length);
      const size = buffer.write(value, at + 4, "utf8");
      buffer.writeUInt32LE(size, at);
      at += 4 + size;
      return writer;
    },
    view: () => buffer.subarray(0, at),
  };
  return writer;
}
