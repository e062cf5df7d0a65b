/**
 * Class values of a batch of more than a GiB, most of which nobody wrote (a hole in the file): they are read in parts, whatever their type.
 */
import { open } from "node:fs/promises";
import { join } from "node:path";
import { Field, FixedSizeBinary, Schema, Utf8View } from "apache-arrow";
import { BufferRegion, FieldNode, Message, RecordBatch as BatchMetadata } from "apache-arrow/ipc/metadata/message";
import { expect, it } from "vitest";
import { encodeSegmentIndex, tileSegments } from "../../src/merkle/segment-index.ts";
import { formatDigest } from "../../src/model/bytes.ts";
import type { ScannedShard } from "../../src/shards/scan-file.ts";
import { canonicalSchema } from "../../src/shards/schema.ts";
import { classColumns, collectValues, type ClassValues } from "../../src/shards/vocabulary.ts";
import { tempDir } from "../support/temp-dir.ts";

const ROWS = 1100;
const PAD_BYTES = 1 << 20;
const LABELS = ["a", "a label that does not fit its view", "another one, which lies elsewhere"];

/** One record batch: a wide column of zeros, and labels. What a scan would say of it, but for digests, which nobody asks for. */
async function writeGiant(path: string): Promise<ScannedShard> {
  const texts = LABELS.map((text) => Buffer.from(text));
  const data = Buffer.concat(texts.slice(1)); // the first one fits its view
  const views = new Int32Array(4 * ROWS);
  for (let row = 0; row < ROWS; row++) {
    const label = row < ROWS / 2 ? 0 : 1 + (row % 2); // only later rows have the others
    const text = texts[label] as Buffer;
    views[4 * row] = text.byteLength;
    if (label === 0) new Uint8Array(views.buffer).set(text, 16 * row + 4);
    else views[4 * row + 3] = label === 1 ? 0 : (texts[1] as Buffer).byteLength;
  }
  const viewsAt = ROWS * PAD_BYTES;
  const dataAt = viewsAt + views.byteLength;
  const bodyBytes = dataAt + Math.ceil(data.byteLength / 64) * 64;
  const regions = [
    new BufferRegion(0, 0),
    new BufferRegion(0, ROWS * PAD_BYTES),
    new BufferRegion(viewsAt, 0),
    new BufferRegion(viewsAt, views.byteLength),
    new BufferRegion(dataAt, data.byteLength),
  ];
  const nodes = [new FieldNode(ROWS, 0), new FieldNode(ROWS, 0)];
  const encoded = Message.encode(Message.from(new BatchMetadata(ROWS, nodes, regions, null, [1]), bodyBytes));
  const message = new Uint8Array(8 + Math.ceil(encoded.byteLength / 8) * 8);
  new Int32Array(message.buffer).set([-1, message.byteLength - 8]);
  message.set(encoded, 8);

  const headBytes = 8;
  const bodyAt = headBytes + message.byteLength;
  await using file = await open(path, "w");
  await file.write(message, 0, message.byteLength, headBytes);
  await file.write(new Uint8Array(views.buffer), 0, views.byteLength, bodyAt + viewsAt);
  await file.write(data, 0, data.byteLength, bodyAt + dataAt);
  await file.truncate(bodyAt + bodyBytes + 8);
  const segments = tileSegments([
    { kind: "head", bytes: headBytes, rows: 0 },
    { kind: "batch", bytes: message.byteLength + bodyBytes, rows: ROWS },
    { kind: "footer", bytes: 8, rows: 0 },
  ]);
  const bytes = bodyAt + bodyBytes + 8;
  const nobody = new Uint8Array(32);
  const leaves = new Uint8Array(32 * segments.reduce((sum, { leafCount }) => sum + leafCount, 0));
  const index = encodeSegmentIndex({ fileBytes: bytes, fileDigest: nobody, segments, leaves, dictionaryIds: [] });
  const digest = formatDigest(nobody);
  const fields = [new Field("pad", new FixedSizeBinary(PAD_BYTES), false), new Field("label", new Utf8View(), false)];
  const schema = canonicalSchema(new Schema(fields));
  return { rows: ROWS, bytes, digest, index, indexDigest: digest, schema, schemaAt: bytes - 8 };
}

it("are found in a column of views", async () => {
  await using folder = await tempDir("giant-classes");
  const path = join(folder.path, "giant.arrow");
  const values: ClassValues = new Map();
  const scanned = await writeGiant(path);
  await collectValues(path, scanned, classColumns(scanned.schema), values);
  expect([...(values.get("label")?.values ?? [])].toSorted()).toEqual(LABELS);
});
