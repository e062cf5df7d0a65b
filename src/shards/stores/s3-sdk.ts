/**
 * Owns loading the AWS SDK, which only those need who keep shards in S3, and what every request to a bucket names.
 */
import type { S3Client } from "@aws-sdk/client-s3";
import { ShardpactError } from "../../model/errors.ts";

export type S3Sdk = typeof import("@aws-sdk/client-s3");

/** Where objects go, and with what. */
export interface S3Place {
  readonly sdk: S3Sdk;
  readonly client: S3Client;
  readonly bucket: string;
  /** Ends with `/`, or is empty. */
  readonly prefix: string;
}

/** @throws ShardpactError `setup_failed` */
export async function loadS3(): Promise<S3Sdk> {
  try {
    return await import("@aws-sdk/client-s3");
  } catch (cause) {
    throw new ShardpactError("setup_failed", "S3 stores need the package @aws-sdk/client-s3, which is not installed", {
      cause,
      hint: "npm install @aws-sdk/client-s3",
    });
  }
}

export function aborting(signal: AbortSignal | undefined): { abortSignal?: AbortSignal } {
  return signal ? { abortSignal: signal } : {};
}
