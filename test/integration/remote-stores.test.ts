/**
 * The S3 and the NATS store against real servers: one contract, then what only they have.
 */
import { readdir, readFile, rm, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { connect } from "nats";
import { afterAll, beforeAll, expect, test } from "vitest";
import { startLocalGroup } from "../../src/cli/embedded/local-group.ts";
import { connect as connectGroup } from "../../src/index.ts";
import { formatDigest, utf8 } from "../../src/model/bytes.ts";
import { hashBytes } from "../../src/merkle/hash.ts";
import { openStore } from "../../src/shards/stores/open-store.ts";
import { copyInS3 } from "../../src/shards/stores/s3-copy.ts";
import { loadS3 } from "../../src/shards/stores/s3-sdk.ts";
import { parseS3Url } from "../../src/shards/stores/s3-store.ts";
import { shardStoreContract, someBytes } from "../contract/shard-store.ts";
import { tinyShard } from "../support/group.ts";
import { type JetStream, startJetStream } from "../support/jetstream.ts";
import { type S3Server, startS3 } from "../support/s3-server.ts";
import { type TempDir, tempDir } from "../support/temp-dir.ts";

let dir: TempDir;
let s3: S3Server;
let jetStream: JetStream;
let buckets = 0;

beforeAll(async () => {
  dir = await tempDir("remote-stores");
  [s3, jetStream] = await Promise.all([startS3(join(dir.path, "s3")), startJetStream(join(dir.path, "nats"))]);
});
afterAll(async () => {
  await Promise.all([s3.stop(), jetStream.server.stop()]);
  await dir.remove();
});

shardStoreContract("an S3 bucket", async () => {
  const bucket = `contract-${++buckets}`;
  const store = await openStore(await s3.bucket(bucket));
  return {
    store,
    damage: (digest, bytes) =>
      writeFile(join(s3.dir, bucket, "shards", "b3", digest.slice(3, 5), digest.slice(3)), bytes),
    [Symbol.asyncDispose]: () => store.close(),
  };
});

shardStoreContract("a NATS object store", async () => {
  const bucket = `contract-${++buckets}`;
  const store = await openStore(`${jetStream.url}/${bucket}`);
  const nc = await connect({ servers: jetStream.url });
  const { views } = nc.jetstream();
  return {
    store,
    async damage(digest, bytes) {
      const entry = { bytes: bytes.byteLength, pieceBytes: 1024 * 1024, upload: "damage" };
      await (await views.os(`${bucket}-pieces`)).putBlob({ name: `${digest.slice(3)}/damage/0` }, bytes);
      await (await views.os(bucket)).putBlob({ name: digest.slice(3) }, utf8(JSON.stringify(entry)));
    },
    async [Symbol.asyncDispose]() {
      await nc.close();
      await store.close();
    },
  };
});

test.each(["s3", "nats"])("%s: an object of many parts appears whole, or not at all", async (kind) => {
  const bucket = `parts-${kind}`;
  await using store = await openStore(kind === "s3" ? await s3.bucket(bucket) : `${jetStream.url}/${bucket}`);
  const bytes = someBytes(30_000_000, 7);
  const digest = formatDigest(hashBytes(bytes));
  await expect(store.put(digest, breaking(bytes), { bytes: bytes.byteLength })).rejects.toMatchObject({
    code: "store_failed",
  });
  const wrong = bytes.slice();
  wrong[29_999_999] = (wrong[29_999_999] ?? 0) ^ 1;
  await expect(store.put(digest, pieces(wrong), { bytes: bytes.byteLength })).rejects.toMatchObject({
    code: "shard_corrupt",
  });
  expect(await store.stat(digest)).toBeNull();
  expect(await store.put(digest, pieces(bytes), { bytes: bytes.byteLength })).toBe("stored");
  await using handle = await store.open(digest);
  const back = new Uint8Array(5_000_000);
  expect(await handle.readInto(back, 14_000_000)).toBe(5_000_000);
  expect(Buffer.compare(back, bytes.subarray(14_000_000, 19_000_000))).toBe(0);
});

test("s3: a bad copy is kept as evidence, with the reason", async () => {
  await using store = await openStore(await s3.bucket("evidence"));
  const bytes = someBytes(1_000, 8);
  const digest = formatDigest(hashBytes(bytes));
  await store.put(digest, pieces(bytes));
  await store.quarantine(digest, "leaf 3 does not match");
  const kept = join(s3.dir, "evidence", "shards", "quarantine");
  const [copy = "", reason = ""] = (await readdir(kept)).sort();
  expect(new Uint8Array(await readFile(join(kept, copy)))).toEqual(bytes);
  expect(await readFile(join(kept, reason), "utf8")).toMatch(/^\d{4}-\d\d-\d\dT\S+ leaf 3 does not match\n$/);
});

test("s3: an object that is larger than what is copied at once is copied in parts", async () => {
  const address = await s3.bucket("copies");
  await using store = await openStore(address);
  const bytes = someBytes(12_000_000, 10);
  const digest = formatDigest(hashBytes(bytes));
  await store.put(digest, pieces(bytes), { bytes: bytes.byteLength });
  const { bucket, prefix, endpoint } = parseS3Url(address);
  const sdk = await loadS3();
  const client = new sdk.S3Client({ endpoint: endpoint ?? "", region: "us-east-1", forcePathStyle: true });
  const place = { sdk, client, bucket, prefix };
  const from = `${prefix}b3/${digest.slice(3, 5)}/${digest.slice(3)}`;
  const copy = {
    from,
    to: `${prefix}copy`,
    bytes: bytes.byteLength,
    copyBytesMax: 6_000_000,
    partBytes: 5 * 1024 * 1024,
  };
  await copyInS3(place, copy);
  expect(Buffer.compare(await readFile(join(s3.dir, bucket, copy.to)), bytes)).toBe(0);
  await expect(copyInS3(place, { ...copy, from: `${prefix}nothing`, to: `${prefix}none` })).rejects.toThrow();
  expect(await readdir(join(s3.dir, bucket, "shards"))).not.toContain("none");
  client.destroy();
});

test("what is not there is told in time and in words", async () => {
  const missing = new URL(await s3.bucket("there"));
  missing.hostname = "not-there";
  await using store = await openStore(missing.href);
  const digest = formatDigest(hashBytes(someBytes(1, 9)));
  await expect(store.put(digest, pieces(someBytes(1, 9)))).rejects.toMatchObject({ code: "store_failed" });
  await using nobody = await openStore("nats://127.0.0.1:1/bucket");
  await expect(nobody.stat(digest)).rejects.toMatchObject({ code: "store_failed" });
  await expect(openStore("s3://bucket/x?secret=y")).rejects.toMatchObject({ code: "config_invalid" });
});

test("a version in S3 and NATS is read through a cache; damage is found in each place, and mended", async () => {
  await using local = await startLocalGroup({ dir: join(dir.path, "group") });
  await local.waitForLeader();
  const bucket = await s3.bucket("dataset");
  const options = {
    ...{ url: local.url, stores: [bucket, `${jetStream.url}/dataset`], onNotice: () => undefined },
    cache: { dir: join(dir.path, "cache"), bytesMax: 64 * 1024 * 1024 },
  };
  await using group = await connectGroup(options);
  const source = await tinyShard(join(dir.path, "points"), "part-1", 1, 40_000);
  await group.publish("points", source);
  await group.publish("points", source, { store: `${jetStream.url}/dataset` });
  const expected = Array.from({ length: 40_000 }, (_, i) => 1000 + i);
  const read = async (from = options): Promise<number[]> => {
    await using reader = await connectGroup(from);
    await using points = await reader.open("points@v1");
    await points.lock(join(dir.path, "shardpact.lock"));
    const values: number[] = [];
    for await (const batch of points.batches()) values.push(...(batch.getChild("x") ?? []));
    return values;
  };
  expect(await read()).toEqual(expected);
  expect(await readFile(join(dir.path, "shardpact.lock"), "utf8")).not.toContain("#cache");

  const folder = join(s3.dir, "dataset", "shards", "b3");
  const objects = (await readdir(folder, { recursive: true })).filter((name) => /[0-9a-f]{64}$/.test(name));
  const sizes = await Promise.all(objects.map(async (name) => (await readFile(join(folder, name))).byteLength));
  const shard = objects[sizes.indexOf(Math.max(...sizes))] ?? "";
  const flip = async (path: string): Promise<void> => {
    const bytes = await readFile(path);
    bytes[100_000] = (bytes[100_000] ?? 0) ^ 1;
    await writeFile(path, bytes);
  };
  await flip(join(dir.path, "cache", "b3", shard.slice(3), "0"));
  expect(await read()).toEqual(expected);
  await flip(join(folder, shard));
  await rm(join(dir.path, "cache"), { recursive: true });
  expect(await read()).toEqual(expected);
  expect(await readdir(join(s3.dir, "dataset", "shards", "quarantine"))).toHaveLength(2);
  expect(await read()).toEqual(expected); // kept in the cache again, from the good store
  await jetStream.server.kill("SIGKILL");
  await s3.stop();
  expect(await read()).toEqual(expected);
});

async function* pieces(bytes: Uint8Array, size = 700_000): AsyncGenerator<Uint8Array> {
  for (let at = 0; at < bytes.byteLength; at += size) yield bytes.subarray(at, at + size);
}

async function* breaking(bytes: Uint8Array): AsyncGenerator<Uint8Array> {
  yield* pieces(bytes.subarray(0, 20_000_000));
  throw new Error("the source broke");
}
