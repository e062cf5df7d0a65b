/**
 * Owns copying an object of any size within a bucket. S3 copies 5 GiB in one request at most; what is larger is copied in
 * parts, and is not to be seen before the last of them is there.
 */
import type { S3Place } from "./s3-sdk.ts";

const GiB = 1024 * 1024 * 1024;
const COPY_BYTES_MAX = 5 * GiB;
/** A shard has 256 GiB at most, an upload 10,000 parts. */
const PART_BYTES = GiB;

export interface S3Copy {
  /** Keys. */
  readonly from: string;
  readonly to: string;
  readonly bytes: number;
  /** What is copied in one request at most, and in parts of how many bytes else. */
  readonly copyBytesMax?: number;
  readonly partBytes?: number;
}

/** @throws what the SDK throws */
export async function copyInS3({ sdk, client, bucket }: S3Place, copy: S3Copy): Promise<void> {
  const { bytes, copyBytesMax = COPY_BYTES_MAX, partBytes = PART_BYTES } = copy;
  const object = { Bucket: bucket, Key: copy.to };
  const CopySource = encodeURI(`${bucket}/${copy.from}`);
  if (bytes <= copyBytesMax) {
    await client.send(new sdk.CopyObjectCommand({ ...object, CopySource }));
    return;
  }
  const { UploadId } = await client.send(new sdk.CreateMultipartUploadCommand(object));
  const upload = { ...object, UploadId };
  try {
    const Parts: { PartNumber: number; ETag?: string }[] = [];
    for (let from = 0; from < bytes; from += partBytes) {
      const PartNumber = Parts.length + 1;
      const CopySourceRange = `bytes=${from}-${Math.min(from + partBytes, bytes) - 1}`;
      const input = { ...upload, PartNumber, CopySource, CopySourceRange };
      const { CopyPartResult } = await client.send(new sdk.UploadPartCopyCommand(input));
      const ETag = CopyPartResult?.ETag;
      Parts.push({ PartNumber, ...(ETag === undefined ? {} : { ETag }) });
    }
    await client.send(new sdk.CompleteMultipartUploadCommand({ ...upload, MultipartUpload: { Parts } }));
  } catch (error) {
    await client.send(new sdk.AbortMultipartUploadCommand(upload)).catch(() => undefined);
    throw error;
  }
}
