/**
 * Owns bringing one object into S3: small ones in one put, others in parts of which some are under way at a time.
 *
 * Nothing is to be seen of an object before its bytes were hashed: a put that fails, or that brings other bytes, ends
 * with an aborted upload. The last step is conditional (nobody else's whole copy is replaced).
 */
import type { Digest } from "../../model/bytes.ts";
import { checkPut, createObjectDigest } from "../object-digest.ts";
import type { PutOptions } from "../port.ts";
import { throwIfAborted } from "./guard.ts";
import { aborting, type S3Place } from "./s3-sdk.ts";

const MiB = 1024 * 1024;
const PART_BYTES_MIN = 8 * MiB;
/** S3 takes 10,000 parts at most, and this for an object whose size is not told: 160 GiB. */
const PART_BYTES_UNKNOWN = 16 * MiB;
const PARTS_MAX = 9_000;
const PARTS_AT_ONCE = 4;

export interface S3Upload {
  readonly key: string;
  readonly storeUrl: string;
  readonly digest: Digest;
  readonly source: AsyncIterable<Uint8Array>;
  readonly options: PutOptions;
  isWholeThere(bytes: number): Promise<boolean>;
}

/** @throws `shard_corrupt` when the bytes are not those of the digest, and what the SDK throws */
export async function uploadToS3(place: S3Place, upload: S3Upload): Promise<"stored" | "present"> {
  const { source, options, digest, storeUrl } = upload;
  const hash = createObjectDigest(options.context);
  const partBytes =
    options.bytes === undefined ? PART_BYTES_UNKNOWN : Math.max(PART_BYTES_MIN, Math.ceil(options.bytes / PARTS_MAX));
  let bytes = 0;
  let parts: Parts | null = null;
  try {
    let last: Uint8Array = new Uint8Array(0);
    for await (const { part, isLast } of cutInParts(source, partBytes)) {
      throwIfAborted(options.signal);
      hash.update(part);
      bytes += part.byteLength;
      last = part;
      if (isLast && parts === null) break;
      parts ??= await beginParts(place, upload);
      await parts.add(part);
      options.onBytes?.(part.byteLength);
    }
    await parts?.settle();
    checkPut(storeUrl, digest, hash.digest(), bytes);
    if (await upload.isWholeThere(bytes)) {
      await parts?.abort();
      return "present";
    }
    if (parts) await parts.complete();
    else {
      await putWhole(place, upload, last);
      options.onBytes?.(last.byteLength);
    }
    return "stored";
  } catch (error) {
    await parts?.abort();
    throw error;
  }
}

/** Pieces of exactly `partBytes`, the last one short (or empty, when there is nothing else). Each is the receiver's own. */
async function* cutInParts(
  source: AsyncIterable<Uint8Array>,
  partBytes: number,
): AsyncGenerator<{ readonly part: Uint8Array; readonly isLast: boolean }> {
  let held: Uint8Array[] = [];
  let heldBytes = 0;
  for await (const chunk of source) {
    let rest = chunk;
    while (heldBytes + rest.byteLength > partBytes) {
      const take = partBytes - heldBytes;
      held.push(rest.slice(0, take));
      yield { part: Buffer.concat(held), isLast: false };
      rest = rest.subarray(take);
      held = [];
      heldBytes = 0;
    }
    held.push(rest.slice());
    heldBytes += rest.byteLength;
  }
  yield { part: Buffer.concat(held), isLast: true };
}

/** In place of nobody's copy; a copy that is there is not whole (that was looked at), and is replaced. */
async function putWhole({ sdk, client, bucket }: S3Place, upload: S3Upload, body: Uint8Array): Promise<void> {
  const input = { Bucket: bucket, Key: upload.key, Body: body };
  await unlessTaken(
    () => client.send(new sdk.PutObjectCommand({ ...input, IfNoneMatch: "*" }), aborting(upload.options.signal)),
    async () => {
      if (await upload.isWholeThere(body.byteLength)) return;
      await client.send(new sdk.PutObjectCommand(input), aborting(upload.options.signal));
    },
  );
}

interface Parts {
  /** Resolves when there is room for the next part. */
  add(part: Uint8Array): Promise<void>;
  /** Resolves when all parts are there. */
  settle(): Promise<void>;
  complete(): Promise<void>;
  /** Never throws: what is left is for the bucket's own rule on incomplete uploads. */
  abort(): Promise<void>;
}

async function beginParts({ sdk, client, bucket }: S3Place, { key, options }: S3Upload): Promise<Parts> {
  const object = { Bucket: bucket, Key: key };
  const { UploadId } = await client.send(new sdk.CreateMultipartUploadCommand(object), aborting(options.signal));
  const done: { PartNumber: number; ETag?: string }[] = [];
  const underWay = new Set<Promise<void>>();
  let count = 0;
  let failure: unknown = null;

  async function send(part: Uint8Array, PartNumber: number): Promise<void> {
    const input = { ...object, UploadId, PartNumber, Body: part };
    const { ETag } = await client.send(new sdk.UploadPartCommand(input), aborting(options.signal));
    done.push({ PartNumber, ...(ETag === undefined ? {} : { ETag }) });
  }
  const settle = async (): Promise<void> => {
    await Promise.all(underWay);
    if (failure !== null) throw failure;
  };
  return {
    async add(part) {
      if (failure !== null) throw failure;
      count += 1;
      const sending = send(part, count)
        .catch((error: unknown) => void (failure ??= error))
        .finally(() => underWay.delete(sending));
      underWay.add(sending);
      if (underWay.size >= PARTS_AT_ONCE) await Promise.race(underWay);
    },
    settle,
    async complete() {
      const Parts = done.toSorted((a, b) => a.PartNumber - b.PartNumber);
      const input = { ...object, UploadId, MultipartUpload: { Parts } };
      await unlessTaken(
        () =>
          client.send(new sdk.CompleteMultipartUploadCommand({ ...input, IfNoneMatch: "*" }), aborting(options.signal)),
        () => client.send(new sdk.CompleteMultipartUploadCommand(input), aborting(options.signal)),
      );
    },
    async abort() {
      await Promise.all(underWay);
      await client.send(new sdk.AbortMultipartUploadCommand({ ...object, UploadId })).catch(() => undefined);
    },
  };
}

/** Runs `otherwise` when the key is taken already (412), or when another put of it is under way (409). */
async function unlessTaken(put: () => Promise<unknown>, otherwise: () => Promise<unknown>): Promise<void> {
  try {
    await put();
  } catch (error) {
    const status = (error as { $metadata?: { httpStatusCode?: number } }).$metadata?.httpStatusCode;
    if (status !== 412 && status !== 409) throw error;
    await otherwise();
  }
}
