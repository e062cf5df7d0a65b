/**
 * Owns copying a shard out of untrusted stores into a file, byte for byte as it was published: what is not right is never there.
 */
import { mkdir, open, rename, rm } from "node:fs/promises";
import { dirname } from "node:path";
import { LIMITS } from "../model/limits.ts";
import { openShard, type OpenShardOptions } from "./reader.ts";

/** Leaves that are copied at a time: a segment may be as large as its file. */
const COPIED_LEAVES = 32;

/** The file appears under its name when all of its leaves were good. @throws as `ShardReader.readLeaves`, and the file system's errors */
export async function copyShard(options: OpenShardOptions, path: string): Promise<void> {
  await using reader = await openShard(options);
  await mkdir(dirname(path), { recursive: true });
  const partial = `${path}.${process.pid}.partial`;
  try {
    await using file = await open(partial, "w");
    const buffer = new Uint8Array(COPIED_LEAVES * LIMITS.leafBytes);
    for (const [segment, { leafCount }] of reader.index.segments.entries()) {
      for (let leaf = 0; leaf < leafCount; leaf += COPIED_LEAVES) {
        const end = Math.min(leafCount, leaf + COPIED_LEAVES);
        const bytes = await reader.readLeaves(segment, leaf, end, buffer);
        for (let at = 0; at < bytes.byteLength;) at += (await file.write(bytes, at)).bytesWritten;
      }
    }
    await file.sync();
    await rename(partial, path);
  } finally {
    await rm(partial, { force: true });
  }
}
