/**
 * Owns folders of images as rows: the original bytes, for decoders differ by version, the path, and the folder as class.
 */
import { readFile } from "node:fs/promises";
import { Binary, Dictionary, Field, Int32, Schema, Utf8 } from "apache-arrow";
import { utf8 } from "../model/bytes.ts";
import { ShardpactError } from "../model/errors.ts";
import { LIMITS } from "../model/limits.ts";
import { imageHeader } from "../shards/image-header.ts";
import type { SourceFile } from "../shards/sources.ts";
import type { RowChunk, RowReader } from "./row-source.ts";

const FILES_AT_ONCE = 16;
const WARNINGS_MAX = 20;

/**
 * Columns `image`, `path` and, where all files lie in class folders, `label`. `splitFolder`: the first part of each name. What no
 * loader will decode is taken, and told.
 */
export function openImages(
  files: readonly SourceFile[],
  splitFolder: boolean,
  onWarning: (text: string) => void = () => undefined,
): RowReader {
  const parts = files.map(({ name }) => name.split("/").slice(splitFolder ? 1 : 0));
  const labels = parts.every((path) => path.length > 1) ? parts.map((path) => path.at(-2) ?? "") : null;
  const fields: Field[] = [new Field("image", new Binary(), true), new Field("path", new Utf8(), true)];
  if (labels) fields.push(new Field("label", new Dictionary(new Utf8(), new Int32(), 0), true));
  return {
    schema: new Schema(fields),
    rowsTotal: files.length,
    async *chunks(): AsyncGenerator<RowChunk> {
      let strange = 0;
      for (let at = 0; at < files.length; at += FILES_AT_ONCE) {
        const some = files.slice(at, at + FILES_AT_ONCE);
        const images = await Promise.all(some.map(readImage));
        for (const [i, image] of images.entries()) {
          if (imageHeader(image) !== null || strange++ >= WARNINGS_MAX) continue;
          onWarning(`${some[i]?.path} is no PNG, JPEG, WebP, GIF, TIFF or AVIF: loaders will not decode it`);
        }
        const valid = () => true;
        yield {
          rows: some.length,
          columns: [
            { valid, bytes: (row) => images[row] as Uint8Array },
            { valid, bytes: (row) => utf8(some[row]?.name ?? "") },
            ...(labels ? [{ valid, text: (row: number) => labels[at + row] ?? "" }] : []),
          ],
        };
      }
      if (strange > WARNINGS_MAX) onWarning(`${strange - WARNINGS_MAX} more files are no pictures that loaders decode`);
    },
    close: () => undefined,
  };
}

async function readImage({ path, bytes }: SourceFile): Promise<Uint8Array> {
  if (bytes > LIMITS.imageBytesMax) {
    throw new ShardpactError("limit_exceeded", `the image ${path} takes ${bytes} bytes`, {
      details: { path, bytes, bytesMax: LIMITS.imageBytesMax },
    });
  }
  const data = await readFile(path);
  if (data.byteLength > 0) return data;
  throw new ShardpactError("shard_malformed", `the image ${path} is empty`, { details: { path, offset: 0 } });
}
