/**
 * Owns a shard store in an S3 bucket: `<prefix>/b3/ab/<64 hex digits>`, `<prefix>/quarantine/` for evidence.
 *
 * `s3://bucket/prefix?region=…&endpoint=http://…&pathStyle=true`; credentials come from the AWS SDK's usual places
 * (environment, profile, instance). The SDK is an optional peer: it is loaded when the first such store is opened.
 */
import { randomBytes } from "node:crypto";
import type { Digest } from "../../model/bytes.ts";
import { ShardpactError } from "../../model/errors.ts";
import { LIMITS } from "../../model/limits.ts";
import type { ObjectHandle, ObjectInfo, PutOptions, ShardStore } from "../port.ts";
import { fillFrom, withDeadline } from "./deadline.ts";
import { createGuard, digestOf, type Guard, hexOf, keyOf, throwIfAborted } from "./guard.ts";
import { copyInS3 } from "./s3-copy.ts";
import { aborting, loadS3, type S3Place } from "./s3-sdk.ts";
import { uploadToS3 } from "./s3-upload.ts";
import { isWholeCopy } from "./whole-copy.ts";

const CONNECT_TIMEOUT_MS = 5_000;
const ATTEMPTS_MAX = 4;
const BODIES_MAX = 3;

/** @throws ShardpactError `config_invalid`, `setup_failed` (the SDK is not installed) */
export async function openS3Store(address: string): Promise<ShardStore> {
  const { bucket, prefix, region, endpoint, pathStyle } = parseS3Url(address);
  const sdk = await loadS3();
  const client = new sdk.S3Client({
    ...(region === null ? {} : { region }),
    ...(endpoint === null ? {} : { endpoint }),
    forcePathStyle: pathStyle,
    maxAttempts: ATTEMPTS_MAX,
    // Our own digests prove the bytes; not every S3 server knows the SDK's default checksums.
    requestChecksumCalculation: "WHEN_REQUIRED",
    responseChecksumValidation: "WHEN_REQUIRED",
    // For puts, which may take long on a slow line: no silence longer than this. Reads have a deadline (`withDeadline`); the
    // SDK's own `requestTimeout` only warns.
    requestHandler: { connectionTimeout: CONNECT_TIMEOUT_MS, socketTimeout: LIMITS.storeRequestTimeoutMs },
  });
  return s3Store({ sdk, client, bucket, prefix }, address);
}

export interface S3Url {
  readonly bucket: string;
  readonly prefix: string;
  readonly region: string | null;
  readonly endpoint: string | null;
  readonly pathStyle: boolean;
}

/** @throws ShardpactError `config_invalid` */
export function parseS3Url(address: string): S3Url {
  const url = new URL(address);
  if (url.hostname === "")
    throw new ShardpactError("config_invalid", `'${address}' names no bucket`, { hint: "Write s3://bucket/prefix." });
  const known = new Set(["region", "endpoint", "pathStyle"]);
  const unknown = [...url.searchParams.keys()].find((name) => !known.has(name));
  if (unknown !== undefined || url.username !== "" || url.password !== "")
    throw new ShardpactError(
      "config_invalid",
      `'${url.protocol}//${url.host}': '${unknown ?? "credentials"}' is not taken here`,
      {
        hint: "A store's URL takes region, endpoint and pathStyle; credentials belong into the environment or a profile.",
      },
    );
  const endpoint = url.searchParams.get("endpoint");
  const path = url.pathname.replaceAll(/^\/+|\/+$/g, "");
  return {
    bucket: url.hostname,
    prefix: path === "" ? "" : `${decodeURIComponent(path)}/`,
    // A server of one's own has no regions; the SDK wants one all the same.
    region: url.searchParams.get("region") ?? (endpoint === null ? null : "us-east-1"),
    endpoint,
    pathStyle: (url.searchParams.get("pathStyle") ?? String(endpoint !== null)) === "true",
  };
}

function s3Store(place: S3Place, url: string): ShardStore {
  const { sdk, client, bucket, prefix } = place;
  const guard = createGuard(url, {
    hint: "Check bucket, region, endpoint and credentials.",
    isMissing: (error) => isMissing(error),
    codeOf: (error) => (error instanceof Error ? error.name : ""),
  });
  const at = (digest: Digest) => ({ Bucket: bucket, Key: prefix + keyOf(digest) });
  const sizeOf = (digest: Digest, signal?: AbortSignal): Promise<number> =>
    withDeadline(signal, async (ending) => {
      const { ContentLength } = await client.send(new sdk.HeadObjectCommand(at(digest)), aborting(ending));
      return ContentLength ?? 0;
    });
  const stat = (digest: Digest): Promise<ObjectInfo | null> =>
    guard.run(`looking for ${digest}`, async () => {
      try {
        return { digest, bytes: await sizeOf(digest) };
      } catch (error) {
        if (isMissing(error)) return null;
        throw error;
      }
    });
  const close = (): Promise<void> => {
    guard.close();
    client.destroy();
    return Promise.resolve();
  };
  const store: ShardStore = {
    url,
    open: (digest, signal) =>
      guard.run(`opening ${digest}`, async () => {
        throwIfAborted(signal);
        return openedObject(place, guard, digest, await sizeOf(digest, signal), signal);
      }),
    stat,
    put: (digest, source, options = {}) =>
      guard.run(`storing ${digest}`, () => putObject(place, store, digest, source, options)),
    list: () => listObjects(place, guard),
    quarantine: (digest, reason) =>
      guard.run(`quarantining ${digest}`, async () => {
        const found = await stat(digest);
        if (found) await setAside(place, found, reason); // else somebody else was first
      }),
    close,
    [Symbol.asyncDispose]: close,
  };
  return store;
}

function openedObject(
  { sdk, client, bucket, prefix }: S3Place,
  guard: Guard,
  digest: Digest,
  bytes: number,
  signal: AbortSignal | undefined,
): ObjectHandle {
  const close = (): Promise<void> => Promise.resolve();
  /** The SDK tries a request again, but not a body that breaks off. */
  async function read(target: Uint8Array, position: number, ending: AbortSignal): Promise<void> {
    const Range = `bytes=${position}-${position + target.byteLength - 1}`;
    const input = { Bucket: bucket, Key: prefix + keyOf(digest), Range };
    for (let tries = 1; ; tries++) {
      const { Body } = await client.send(new sdk.GetObjectCommand(input), aborting(ending));
      try {
        await fillFrom(Body as AsyncIterable<Uint8Array>, target);
        return;
      } catch (error) {
        if (tries >= BODIES_MAX || ending.aborted) throw error;
      }
    }
  }
  return {
    bytes,
    readInto: (target, position) =>
      guard.run(`reading ${digest}`, async () => {
        const length = Math.min(target.byteLength, bytes - position);
        if (length <= 0) return 0;
        await withDeadline(signal, (ending) => read(target.subarray(0, length), position, ending));
        return length;
      }),
    close,
    [Symbol.asyncDispose]: close,
  };
}

async function putObject(
  place: S3Place,
  store: ShardStore,
  digest: Digest,
  source: AsyncIterable<Uint8Array>,
  options: PutOptions,
): Promise<"stored" | "present"> {
  throwIfAborted(options.signal);
  const { bytes } = options;
  if (bytes !== undefined && (await isWholeCopy(store, digest, bytes, options))) return "present";
  const { onBytes: _, ...quietly } = options;
  return uploadToS3(place, {
    key: place.prefix + keyOf(digest),
    storeUrl: store.url,
    digest,
    source,
    options,
    // Somebody else may have been first; and a size that was not given is known by then.
    isWholeThere: (size) => isWholeCopy(store, digest, size, quietly),
  });
}

async function* listObjects({ sdk, client, bucket, prefix }: S3Place, guard: Guard): AsyncGenerator<ObjectInfo> {
  let ContinuationToken: string | undefined;
  do {
    const input = { Bucket: bucket, Prefix: `${prefix}b3/`, ...(ContinuationToken ? { ContinuationToken } : {}) };
    const page = await guard.run("listing", () =>
      withDeadline(undefined, (ending) => client.send(new sdk.ListObjectsV2Command(input), aborting(ending))),
    );
    for (const { Key, Size } of page.Contents ?? []) {
      const digest = digestOf(Key ?? "");
      if (digest) yield { digest, bytes: Size ?? 0 };
    }
    ContinuationToken = page.IsTruncated === true ? page.NextContinuationToken : undefined;
  } while (ContinuationToken !== undefined);
}

async function setAside(place: S3Place, { digest, bytes }: ObjectInfo, reason: string): Promise<void> {
  const { sdk, client, bucket, prefix } = place;
  const from = prefix + keyOf(digest);
  const kept = `${prefix}quarantine/${hexOf(digest)}.${randomBytes(4).toString("hex")}`;
  try {
    await copyInS3(place, { from, to: kept, bytes });
  } catch (error) {
    if (isMissing(error)) return; // somebody else was first
    throw error;
  }
  const note = `${new Date().toISOString()} ${reason}\n`;
  await client.send(new sdk.PutObjectCommand({ Bucket: bucket, Key: `${kept}.reason.txt`, Body: note }));
  await client.send(new sdk.DeleteObjectCommand({ Bucket: bucket, Key: from }));
}

function isMissing(error: unknown): boolean {
  return error instanceof Error && ["NotFound", "NoSuchKey"].includes(error.name);
}
