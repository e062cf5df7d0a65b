/**
 * A shard of 9 GB that nobody wrote: one record batch whose bytes are made when they are read.
 *
 * Wide values repeat after 13 leaves. So the digests of fifty thousand leaves are those of thirteen, and no power of two is a
 * period: bytes that are 2³¹ or 2³² off are other bytes. Row numbers, bits, offsets and views are all there.
 */
import {
  Bool,
  Field,
  FixedSizeList,
  Int32,
  LargeUtf8,
  makeData,
  RecordBatch,
  Schema,
  Struct,
  Uint8,
  Utf8View,
} from "apache-arrow";
import { BufferRegion, FieldNode, Message, RecordBatch as BatchMetadata } from "apache-arrow/ipc/metadata/message";
import type { ConfirmedVersion } from "../../../src/client/types.ts";
import { DIGEST_BYTES, hashBytes } from "../../../src/merkle/hash.ts";
import { encodeSegmentIndex, leafLength, segmentIndexDigest, tileSegments } from "../../../src/merkle/segment-index.ts";
import { formatDigest, utf8, type Digest } from "../../../src/model/bytes.ts";
import { ShardpactError } from "../../../src/model/errors.ts";
import { LIMITS } from "../../../src/model/limits.ts";
import type { ObjectHandle, ShardStore } from "../../../src/shards/port.ts";
import { makeVersion } from "./version.ts";

export const GIANT_ROWS = 1_100_000;
/** Bytes of a row's `x`: 4.5 GB of them, more than 2³² items. */
export const X_BYTES = 4096;
/** Bytes of a row's `note`: 2.3 GB of them, so offsets go beyond 2³¹. */
export const NOTE_BYTES = 2048;
/** Bytes of a row's `view`, which lie in two buffers: each holds less than 2³¹. */
export const VIEW_BYTES = 2048;
const VIEW_ROWS = 600_000;
const PATTERN_LEAVES = 13;
const PATTERN = Uint8Array.from(
  { length: PATTERN_LEAVES * LIMITS.leafBytes },
  (_, i) => 97 + ((Math.imul(i, 0x9e37_79b1) >>> 24) % 26), // letters, so that they are texts too
);

/** Bytes of the file from `at` on; null: what the pattern holds there. */
interface Region {
  readonly at: number;
  readonly length: number;
  readonly bytes: Uint8Array | null;
}

export interface GiantShard extends AsyncDisposable {
  readonly version: ConfirmedVersion;
  /** Of the file. */
  readonly bytes: number;
  /** Place in the file of a row's `x`. */
  xAt(row: number): number;
  /** What a row's `x`, `note` and `view` are. */
  xOf(row: number): Uint8Array;
  noteOf(row: number): string;
  viewOf(row: number): string;
  /** The byte of the file that is given wrong. */
  flippedAt: number | null;
  /** What was asked of the store: bytes in all, and of one read at most. */
  readonly read: { bytes: number; bytesMax: number };
}

export async function makeGiantShard(): Promise<GiantShard> {
  const head = utf8("ARROW1\0\0");
  const footer = utf8("a footer, which no loader reads");
  const batch = layOutBatch();
  const regions = placed([
    { length: head.byteLength, bytes: head },
    ...batch,
    { length: footer.byteLength, bytes: footer },
  ]);
  const [x, notes, views, moreViews] = regions.filter(({ bytes }) => bytes === null) as [
    Region,
    Region,
    Region,
    Region,
  ];
  const fileBytes = lengthOf(regions);
  const segments = tileSegments([
    { kind: "head", bytes: head.byteLength, rows: 0 },
    { kind: "batch", bytes: lengthOf(batch), rows: GIANT_ROWS },
    { kind: "footer", bytes: footer.byteLength, rows: 0 },
  ]);
  const fileDigest = hashBytes(utf8("nobody reads all of it"));
  const leaves = Buffer.concat(segments.map((segment) => digestLeaves(regions, segment)));
  const index = encodeSegmentIndex({ fileBytes, fileDigest, segments, leaves, dictionaryIds: [] });
  const segmentIndex = formatDigest(segmentIndexDigest(index));
  const entry = { name: "train/giant.arrow", split: 0, rows: GIANT_ROWS, bytes: fileBytes, segmentIndex };
  const shard = { ...entry, digest: formatDigest(fileDigest) };

  const read = { bytes: 0, bytesMax: 0 };
  function readFile(target: Uint8Array, position: number): number {
    const length = Math.max(0, Math.min(target.byteLength, fileBytes - position));
    read.bytes += length;
    read.bytesMax = Math.max(read.bytesMax, length);
    fill(regions, target.subarray(0, length), position);
    const at = giant.flippedAt === null ? -1 : giant.flippedAt - position;
    if (at >= 0 && at < length) target[at] = (target[at] as number) ^ 1;
    return length;
  }
  const readIndex = (target: Uint8Array, position: number): number => {
    const part = index.subarray(position, position + target.byteLength);
    target.set(part);
    return part.byteLength;
  };
  const small = await makeVersion({ splits: { train: [oneRow()] } });
  const store = storeOf({
    [shard.digest]: handleOf(fileBytes, readFile),
    [segmentIndex]: handleOf(index.byteLength, readIndex),
  });
  const totals = { rows: GIANT_ROWS, bytes: fileBytes, shards: 1 };
  const page = { page: formatDigest(hashBytes(utf8("its page"))), totals: [{ split: 0, ...totals }] };
  const giant: GiantShard = {
    version: {
      ...small.version,
      ...totals,
      splits: [{ name: "train", ...totals }],
      stores: [store],
      manifest: async () => [page],
      page: async () => [shard],
    },
    bytes: fileBytes,
    xAt: (row) => x.at + row * X_BYTES,
    xOf: (row) => patternAt(x.at + row * X_BYTES, X_BYTES),
    noteOf: (row) => textAt(notes.at + row * NOTE_BYTES, NOTE_BYTES),
    viewOf: (row) =>
      row < VIEW_ROWS
        ? textAt(views.at + row * VIEW_BYTES, VIEW_BYTES)
        : textAt(moreViews.at + (row - VIEW_ROWS) * VIEW_BYTES, VIEW_BYTES),
    flippedAt: null,
    read,
    [Symbol.asyncDispose]: () => small.close(),
  };
  return giant;
}

const FIELDS = [
  new Field("x", new FixedSizeList(X_BYTES, new Field("item", new Uint8(), false)), false),
  new Field("id", new Int32(), false),
  new Field("odd", new Bool(), false),
  new Field("note", new LargeUtf8(), false),
  new Field("view", new Utf8View(), false),
];

/** For the schema. */
function oneRow(): RecordBatch {
  const [x, id, odd, note, view] = FIELDS.map(({ type }) => type) as [FixedSizeList, Int32, Bool, LargeUtf8, Utf8View];
  const children = [
    makeData({ type: x, length: 1, child: makeData({ type: new Uint8(), data: new Uint8Array(X_BYTES) }) }),
    makeData({ type: id, data: new Int32Array(1) }),
    makeData({ type: odd, length: 1, data: new Uint8Array(1) }),
    makeData({ type: note, length: 1, valueOffsets: new BigInt64Array(2), data: new Uint8Array(0) }),
    makeData({ type: view, length: 1, views: new Uint8Array(16), variadicBuffers: [] }),
  ];
  return new RecordBatch(new Schema(FIELDS), makeData({ type: new Struct(FIELDS), length: 1, children }));
}

type Part = Omit<Region, "at">;

/** The record batch: its metadata, then its buffers, each from a multiple of 64 on. Its validity buffers are empty. */
function layOutBatch(): readonly Part[] {
  const rows = GIANT_ROWS;
  const ids = Int32Array.from({ length: rows }, (_, row) => row);
  const odd = new Uint8Array(Math.ceil(rows / 8)).fill(0b1010_1010);
  const offsets = new Uint32Array(2 * (rows + 1));
  for (let row = 0; row <= rows; row++) {
    offsets[2 * row] = row * NOTE_BYTES; // its low word
    offsets[2 * row + 1] = Math.floor((row * NOTE_BYTES) / 2 ** 32);
  }
  const views = new Int32Array(4 * rows);
  for (let row = 0; row < rows; row++) {
    const isFirst = row < VIEW_ROWS; // the prefix is nothing that is looked at
    views.set([VIEW_BYTES, 0, isFirst ? 0 : 1, (isFirst ? row : row - VIEW_ROWS) * VIEW_BYTES], 4 * row);
  }
  const body = new BodyBuilder();
  body
    .add(0)
    .add(0)
    .add(rows * X_BYTES); // validity of the lists, of their items; items
  body.add(0).add(ids.byteLength, new Uint8Array(ids.buffer));
  body.add(0).add(odd.byteLength, odd);
  body
    .add(0)
    .add(offsets.byteLength, new Uint8Array(offsets.buffer))
    .add(rows * NOTE_BYTES);
  body
    .add(0)
    .add(views.byteLength, new Uint8Array(views.buffer))
    .add(VIEW_ROWS * VIEW_BYTES)
    .add((rows - VIEW_ROWS) * VIEW_BYTES);
  const nodes = [rows, rows * X_BYTES, rows, rows, rows, rows].map((length) => new FieldNode(length, 0));
  const header = new BatchMetadata(rows, nodes, body.regions, null, [2]);
  const metadata = Message.encode(Message.from(header, body.bytes));
  const message = new Uint8Array(8 + Math.ceil(metadata.byteLength / 8) * 8);
  new Int32Array(message.buffer).set([-1, message.byteLength - 8]);
  message.set(metadata, 8);
  return [{ length: message.byteLength, bytes: message }, ...body.parts];
}

class BodyBuilder {
  readonly regions: BufferRegion[] = [];
  readonly parts: Part[] = [];
  bytes = 0;

  add(length: number, bytes: Uint8Array | null = null): this {
    const padding = Math.ceil(length / 64) * 64 - length;
    this.regions.push(new BufferRegion(this.bytes, length));
    if (length > 0) this.parts.push({ length, bytes }, { length: padding, bytes: new Uint8Array(padding) });
    this.bytes += length + padding;
    return this;
  }
}

function placed(parts: readonly Part[]): readonly Region[] {
  let end = 0;
  return parts.map((part) => ({ ...part, at: (end += part.length) - part.length }));
}

function lengthOf(parts: readonly Part[]): number {
  return parts.reduce((sum, { length }) => sum + length, 0);
}

/** The file's bytes from `position` on. */
function fill(regions: readonly Region[], target: Uint8Array, position: number): void {
  for (const { at, length, bytes } of regions) {
    const from = Math.max(position, at);
    const to = Math.min(position + target.byteLength, at + length);
    if (from < to) target.set(bytes ? bytes.subarray(from - at, to - at) : patternAt(from, to - from), from - position);
  }
}

function textAt(position: number, length: number): string {
  return Buffer.from(patternAt(position, length)).toString("latin1");
}

function patternAt(position: number, length: number): Uint8Array {
  const from = position % PATTERN.length;
  if (from + length <= PATTERN.length) return PATTERN.subarray(from, from + length);
  return Uint8Array.from({ length }, (_, i) => PATTERN[(from + i) % PATTERN.length] as number);
}

/** Whole leaves that lie in the pattern are one of thirteen. */
function digestLeaves(regions: readonly Region[], segment: ReturnType<typeof tileSegments>[number]): Uint8Array {
  const leaves = new Uint8Array(segment.leafCount * DIGEST_BYTES);
  const buffer = new Uint8Array(LIMITS.leafBytes);
  const known = new Map<number, Uint8Array>();
  for (let leaf = 0; leaf < segment.leafCount; leaf++) {
    const from = segment.offset + leaf * LIMITS.leafBytes;
    const to = from + leafLength(segment, leaf);
    const isWhole = to - from === LIMITS.leafBytes;
    const isPattern = isWhole && regions.some((r) => r.bytes === null && r.at <= from && to <= r.at + r.length);
    const key = isPattern ? leaf % PATTERN_LEAVES : -1 - leaf;
    if (!known.has(key)) {
      const bytes = buffer.subarray(0, to - from);
      fill(regions, bytes, from);
      known.set(key, new Uint8Array(hashBytes(bytes)));
    }
    leaves.set(known.get(key) as Uint8Array, leaf * DIGEST_BYTES);
  }
  return leaves;
}

function handleOf(bytes: number, read: (target: Uint8Array, position: number) => number): ObjectHandle {
  const close = async (): Promise<void> => undefined;
  return { bytes, readInto: async (target, position) => read(target, position), close, [Symbol.asyncDispose]: close };
}

/** Read-only: a bad copy stays where it is. */
function storeOf(objects: Readonly<Record<Digest, ObjectHandle>>): ShardStore {
  const refuse = (): never => {
    throw new ShardpactError("store_failed", "nothing can be changed here");
  };
  const close = async (): Promise<void> => undefined;
  return {
    url: "made:giant",
    async open(digest) {
      const handle = objects[digest];
      if (!handle) throw new ShardpactError("not_found", `${digest} is not there`);
      return handle;
    },
    stat: async (digest) => (objects[digest] ? { digest, bytes: objects[digest].bytes } : null),
    put: async () => refuse(),
    list: () => refuse(),
    quarantine: async () => refuse(),
    close,
    [Symbol.asyncDispose]: close,
  };
}
