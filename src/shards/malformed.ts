/**
 * Owns the one way a file is refused: `shard_malformed` with file, offset and reason.
 */
import { ShardpactError } from "../model/errors.ts";
import { FlatError } from "./flat.ts";
import { LayoutError } from "./layout.ts";

export function malformed(file: string, offset: number, reason: string, hint = HINT): ShardpactError {
  return new ShardpactError("shard_malformed", `${file}: byte ${offset}: ${reason}`, {
    details: { file, offset, reason },
    hint,
  });
}

const HINT = "Write it again as an uncompressed Arrow IPC file (pyarrow.ipc.new_file, polars write_ipc).";

/** What a parser of untrusted bytes threw, as `shard_malformed`; anything else is passed on as it is. */
export function asMalformed(error: unknown, file: string, offset: number): unknown {
  const parsing = error instanceof FlatError || error instanceof LayoutError || error instanceof RangeError;
  return parsing ? malformed(file, offset, error.message) : error;
}
