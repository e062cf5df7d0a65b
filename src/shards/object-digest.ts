/**
 * Owns digesting an object on its way into a store, in the way its digest was made.
 */
import { formatDigest, concatBytes, type Digest } from "../model/bytes.ts";
import { ShardpactError } from "../model/errors.ts";
import { LIMITS } from "../model/limits.ts";
import { Hasher } from "../merkle/hash.ts";
import { segmentIndexDigest } from "../merkle/segment-index.ts";
import type { PutOptions } from "./port.ts";

export interface ObjectDigest {
  /** @throws `limit_exceeded` when a segment index grows beyond its bound */
  update(bytes: Uint8Array): void;
  digest(): Digest;
}

export function createObjectDigest(context: PutOptions["context"] = "plain"): ObjectDigest {
  return context === "plain" ? plainDigest() : indexDigest();
}

function plainDigest(): ObjectDigest {
  const hasher = new Hasher();
  return { update: (bytes) => void hasher.update(bytes), digest: () => formatDigest(hasher.digest()) };
}

/** `derive_key` comes in one piece; a segment index is small. */
function indexDigest(): ObjectDigest {
  const parts: Uint8Array[] = [];
  let length = 0;
  return {
    update(bytes) {
      length += bytes.byteLength;
      if (length > LIMITS.segmentIndexBytesMax) {
        throw new ShardpactError("limit_exceeded", `a segment index of more than ${LIMITS.segmentIndexBytesMax} bytes`);
      }
      parts.push(bytes.slice());
    },
    digest: () => formatDigest(segmentIndexDigest(concatBytes(parts))),
  };
}

/** @throws `shard_corrupt` when the bytes of a put were not those of the digest */
export function checkPut(store: string, expected: Digest, got: Digest, bytes: number): void {
  if (expected === got) return;
  throw new ShardpactError(
    "shard_corrupt",
    `an object put into ${store} has the digest ${got.slice(0, 11)}… and not ${expected.slice(0, 11)}…`,
    {
      details: { store, expected, got, bytes },
      hint: "Its source changed or is damaged; nothing was stored. Publish it again.",
    },
  );
}
