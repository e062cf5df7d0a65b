/**
 * Owns looking at an Arrow IPC file before it is published: what its bytes are, and that its schema can be read again.
 */
import { isShardpactError } from "../model/errors.ts";
import { malformed } from "./malformed.ts";
import { scanFile, type ScannedShard, type ScanOptions } from "./scan-file.ts";
import { decodeSchema } from "./schema.ts";

/**
 * Scans an uncompressed Arrow IPC file as arrow-js, pyarrow and polars write it.
 * @throws `shard_malformed` (file, offset, reason), `not_found`, `store_failed`, `limit_exceeded`, `aborted`
 */
export async function scanShard(path: string, options: ScanOptions = {}): Promise<ScannedShard> {
  const scanned = await scanFile(path, options);
  checkSchema(path, scanned);
  return scanned;
}

/**
 * What the format allows and makes no sense (a decimal of no digits) is refused: a schema that is agreed on must decode.
 * @throws `shard_malformed`
 */
export function checkSchema(path: string, { schema, schemaAt }: ScannedShard): void {
  try {
    decodeSchema(schema);
  } catch (error) {
    if (!isShardpactError(error, "damaged")) throw error;
    throw malformed(path, schemaAt, `its schema makes no sense: ${error.message.slice(0, 200)}`);
  }
}
