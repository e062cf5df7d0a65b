/**
 * Owns reading FlatBuffers that nobody vouches for: every offset is checked, and the whole parse has a budget.
 *
 * The budget matters as much as the bounds: offsets may point anywhere, so a kilobyte of tables that share children can
 * describe an exponential tree. An honest buffer visits each of its bytes about once; four times is where we stop.
 * Source: FlatBuffers internals (tables, vtables, vectors).
 */

/** A buffer that breaks the format; the caller says in which file and where. */
export class FlatError extends Error {
  override readonly name = "FlatError";
}

export class FlatBuffer {
  readonly bytes: Uint8Array;
  readonly view: DataView;
  #budget: number;

  constructor(bytes: Uint8Array) {
    this.bytes = bytes;
    this.view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
    this.#budget = 4 * bytes.byteLength + 1024;
  }

  root(): FlatTable {
    return new FlatTable(this, this.follow(0));
  }

  /** Claims `length` bytes at `at`. @throws FlatError when they lie outside, or the budget is spent */
  claim(at: number, length: number): void {
    if (at < 0 || at + length > this.bytes.byteLength) throw new FlatError(`it points outside itself (byte ${at})`);
    this.#budget -= length;
    if (this.#budget < 0) throw new FlatError("it refers to its own parts over and over");
  }

  /** Where the unsigned offset at `at` leads. */
  follow(at: number): number {
    this.claim(at, 4);
    return at + this.view.getUint32(at, true);
  }
}

/** A vector of fixed-size elements: `at` is its first byte. */
export interface FlatVector {
  readonly at: number;
  readonly count: number;
}

export class FlatTable {
  readonly #buffer: FlatBuffer;
  readonly #at: number;
  readonly #vtable: number;
  readonly #slotBytes: number;

  constructor(buffer: FlatBuffer, at: number) {
    buffer.claim(at, 4);
    const vtable = at - buffer.view.getInt32(at, true);
    buffer.claim(vtable, 4);
    this.#buffer = buffer;
    this.#at = at;
    this.#vtable = vtable;
    this.#slotBytes = buffer.view.getUint16(vtable, true);
    // Readers differ in what they make of half a slot.
    if (this.#slotBytes < 4 || this.#slotBytes % 2 !== 0) throw new FlatError("a table in it has a malformed head");
    buffer.claim(vtable, this.#slotBytes);
  }

  u8(slot: number, absent: number): number {
    const at = this.#field(slot, 1);
    return at === 0 ? absent : this.#buffer.view.getUint8(at);
  }

  bool(slot: number): boolean {
    return this.u8(slot, 0) !== 0;
  }

  i16(slot: number, absent: number): number {
    const at = this.#field(slot, 2);
    return at === 0 ? absent : this.#buffer.view.getInt16(at, true);
  }

  i32(slot: number, absent: number): number {
    const at = this.#field(slot, 4);
    return at === 0 ? absent : this.#buffer.view.getInt32(at, true);
  }

  /** An int64 that counts something: 0 ≤ value ≤ 2^53. */
  count(slot: number): number {
    const at = this.#field(slot, 8);
    return at === 0 ? 0 : countAt(this.#buffer.view, at);
  }

  text(slot: number): string | null {
    const at = this.#field(slot, 4);
    if (at === 0) return null;
    const { at: start, count } = this.#vectorAt(at, 1);
    try {
      return new TextDecoder("utf-8", { fatal: true, ignoreBOM: true }).decode(
        this.#buffer.bytes.subarray(start, start + count),
      );
    } catch {
      throw new FlatError("a name in it is not UTF-8");
    }
  }

  table(slot: number): FlatTable | null {
    const at = this.#field(slot, 4);
    return at === 0 ? null : new FlatTable(this.#buffer, this.#buffer.follow(at));
  }

  /** The vector's place, all of it inside the buffer. */
  vector(slot: number, elementBytes: number): FlatVector {
    const at = this.#field(slot, 4);
    return at === 0 ? { at: 0, count: 0 } : this.#vectorAt(at, elementBytes);
  }

  i32s(slot: number): number[] {
    const { at, count } = this.vector(slot, 4);
    return Array.from({ length: count }, (_, i) => this.#buffer.view.getInt32(at + 4 * i, true));
  }

  tables(slot: number): FlatTable[] {
    const { at, count } = this.vector(slot, 4);
    return Array.from({ length: count }, (_, i) => new FlatTable(this.#buffer, this.#buffer.follow(at + 4 * i)));
  }

  #vectorAt(field: number, elementBytes: number): FlatVector {
    const at = this.#buffer.follow(field);
    this.#buffer.claim(at, 4);
    const count = this.#buffer.view.getUint32(at, true);
    this.#buffer.claim(at + 4, count * elementBytes);
    return { at: at + 4, count };
  }

  /** Position of a field's inline bytes; 0 when the table leaves it out. */
  #field(slot: number, bytes: number): number {
    const entry = 4 + 2 * slot;
    if (entry + 2 > this.#slotBytes) return 0;
    const offset = this.#buffer.view.getUint16(this.#vtable + entry, true);
    if (offset === 0) return 0;
    this.#buffer.claim(this.#at + offset, bytes);
    return this.#at + offset;
  }
}

/** An int64 at `at` that counts something. @throws FlatError when it is negative or beyond 2^53 */
export function countAt(view: DataView, at: number): number {
  const high = view.getInt32(at + 4, true);
  if (high < 0 || high >= 0x20_0000) throw new FlatError("a length in it is negative or beyond 2^53");
  return high * 0x1_0000_0000 + view.getUint32(at, true);
}
