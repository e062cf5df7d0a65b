import { mkdtemp, readdir, readFile, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, beforeEach, describe, expect, it } from "vitest";
import { lockedDatasetOf, lockOf, readLock, trustLock, writeLock, type Lock } from "../../src/client/lock.ts";
import { loadSettings } from "../../src/client/settings.ts";
import { createSeed, publicKeyHex } from "../../src/model/keys.ts";
import { startResponders } from "./responders.ts";

let folder = "";
beforeEach(async () => {
  folder = await mkdtemp(join(tmpdir(), "shardpact-lock-"));
});
afterEach(() => rm(folder, { recursive: true, force: true }));

const group: Lock["group"] = {
  name: "test",
  id: `b3:${"a".repeat(64)}`,
  voters: [
    { id: "r2", publicKey: "2".repeat(64) },
    { id: "r1", publicKey: "1".repeat(64) },
  ],
};
const locked = (version: number) => ({
  version,
  root: `b3:${"b".repeat(64)}` as const,
  index: 17,
  chain: "c".repeat(64),
});

describe("the members that a lock file names", () => {
  const members = (ids: readonly string[]) => ids.map((id) => ({ id, publicKey: createPublicKey() }));
  const later = { index: 40, number: 4, digest: `b3:${"4".repeat(64)}` as const, votersOutgoing: [] };

  it("are those whose signatures counted, and the next reader starts from there", async () => {
    const writer = startResponders(3).session();
    writer.trust({ ...later, voters: members(["r2", "r3", "r4"]) }, null);
    const confirmed = {
      dataset: "zoo",
      version: 1,
      root: locked(1).root,
      confirmation: { index: 50, chain: "c".repeat(64) },
    };
    const file = join(folder, "shardpact.lock");
    const lock = await writeLock(file, lockOf(writer, confirmed as Parameters<typeof lockOf>[1], []));
    const { votersOutgoing: _none, ...named } = later;
    expect(lock.group.configuration).toEqual(named);
    const reader = startResponders(3).session();
    trustLock(reader, await readLock(file));
    expect(reader.trusted()).toEqual(writer.trusted());
    // A lock of before the members changed takes nothing back.
    trustLock(reader, { group });
    expect(reader.trusted()).toEqual(writer.trusted());
  });

  it("are refused when they contradict what is trusted, now or on the way here", () => {
    const session = startResponders(3).session();
    session.trust({ ...later, number: 3, digest: `b3:${"3".repeat(64)}`, voters: members(["r1"]) }, null);
    session.trust({ ...later, voters: members(["r1"]) }, null);
    for (const number of [3, 4]) {
      const configuration = { index: 40, number, digest: `b3:${"f".repeat(64)}` as const };
      expect(() => trustLock(session, { group: { ...group, configuration } })).toThrow(
        expect.objectContaining({ code: "group_forked" }),
      );
    }
    expect(session.trusted().number).toBe(4);
  });
});

const createPublicKey = (): string => publicKeyHex(createSeed());

describe("lock file", () => {
  it("is small, sorted text that reads back", async () => {
    const file = join(folder, "shardpact.lock");
    await writeLock(file, { group, datasets: { zoo: locked(2) } });
    const lock = await writeLock(file, { group, datasets: { mnist: { ...locked(1), stores: ["file:///data"] } } });
    expect(await readLock(file)).toEqual({ ...lock, group: { ...group, voters: group.voters.toReversed() } });
    expect(await readFile(file, "utf8")).toMatchInlineSnapshot(`
      "{
        "format": "shardpact-lock/1",
        "group": {
          "name": "test",
          "id": "b3:aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa",
          "voters": [
            {
              "id": "r1",
              "publicKey": "1111111111111111111111111111111111111111111111111111111111111111"
            },
            {
              "id": "r2",
              "publicKey": "2222222222222222222222222222222222222222222222222222222222222222"
            }
          ]
        },
        "datasets": {
          "mnist": {
            "version": 1,
            "root": "b3:bbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbb",
            "index": 17,
            "chain": "cccccccccccccccccccccccccccccccccccccccccccccccccccccccccccccccc",
            "stores": [
              "file:///data"
            ]
          },
          "zoo": {
            "version": 2,
            "root": "b3:bbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbb",
            "index": 17,
            "chain": "cccccccccccccccccccccccccccccccccccccccccccccccccccccccccccccccc"
          }
        }
      }
      "
    `);
    expect(await readdir(folder)).toEqual(["shardpact.lock"]);
  });

  it("replaces a dataset's entry and keeps the others", async () => {
    const file = join(folder, "shardpact.lock");
    await writeLock(file, { group, datasets: { mnist: locked(1), zoo: locked(1) } });
    await writeLock(file, { group, datasets: { mnist: locked(2) } });
    const { datasets } = await readLock(file);
    expect([datasets["mnist"]?.version, datasets["zoo"]?.version]).toEqual([2, 1]);
  });

  it("refuses to mix groups, and says what is wrong with a file", async () => {
    const file = join(folder, "shardpact.lock");
    await writeLock(file, { group, datasets: { mnist: locked(1) } });
    const other = { ...group, id: `b3:${"f".repeat(64)}` as const };
    await expect(writeLock(file, { group: other, datasets: {} })).rejects.toMatchObject({ code: "lock_mismatch" });
    await expect(readLock(join(folder, "none"))).rejects.toMatchObject({ code: "not_found" });
    await writeFile(file, "{}");
    await expect(readLock(file)).rejects.toMatchObject({ code: "config_invalid" });
    await writeFile(file, "<<<<<<< HEAD");
    await expect(readLock(file)).rejects.toMatchObject({ code: "config_invalid" });
  });

  it("needs a name only when it holds several datasets", () => {
    const lock: Lock = { format: "shardpact-lock/1", group, datasets: { mnist: locked(1) } };
    expect(lockedDatasetOf(lock).name).toBe("mnist");
    const two: Lock = { ...lock, datasets: { mnist: locked(1), zoo: locked(3) } };
    expect(() => lockedDatasetOf(two)).toThrow(/2 datasets/);
    expect(lockedDatasetOf(two, "zoo").locked.version).toBe(3);
    expect(() => lockedDatasetOf(two, "constructor")).toThrow(/does not hold/);
  });
});

describe("settings", () => {
  it("takes options, then the environment, then the file, then localhost", async () => {
    const env = { USER: "ada" };
    expect(await loadSettings({}, env, folder)).toMatchObject({ servers: ["nats://127.0.0.1:4222"], actor: "ada" });
    await writeFile(join(folder, "shardpact.json"), JSON.stringify({ url: "nats://file:1", stores: ["store"] }));
    expect(await loadSettings({}, env, folder)).toMatchObject({
      servers: ["nats://file:1"],
      stores: [join(folder, "store")],
    });
    const url = { ...env, SHARDPACT_URL: "nats://env:1, nats://env:2" };
    expect((await loadSettings({}, url, folder)).servers).toEqual(["nats://env:1", "nats://env:2"]);
    expect((await loadSettings({ url: "nats://option:1" }, url, folder)).servers).toEqual(["nats://option:1"]);
  });

  it("takes a file's group and stores only for a server that the file names", async () => {
    const groupId = `b3:${"a".repeat(64)}`;
    const file = {
      url: "nats://127.0.0.1:4222,nats://b:5000",
      group: "ours",
      groupId,
      stores: ["store"],
      actor: "ada",
    };
    await writeFile(join(folder, "shardpact.json"), JSON.stringify(file));
    const ours = { group: "ours", groupId, stores: [join(folder, "store")] };
    const none = { group: null, groupId: null, stores: [], actor: "ada" };
    for (const url of ["nats://127.0.0.1:4222", "localhost", "nats://me:secret@B:5000", "nats://c:1, nats://b:5000"]) {
      expect(await loadSettings({ url }, {}, folder), url).toMatchObject(ours);
      expect(await loadSettings({}, { SHARDPACT_URL: url }, folder), url).toMatchObject(ours);
    }
    for (const url of ["nats://127.0.0.1:4223", "nats://b", "not a url"]) {
      expect(await loadSettings({ url }, {}, folder), url).toMatchObject(none);
      expect(await loadSettings({}, { SHARDPACT_URL: url }, folder), url).toMatchObject(none);
    }
    expect(await loadSettings({ url: "nats://z", group: "theirs" }, {}, folder)).toMatchObject({ group: "theirs" });
    await writeFile(join(folder, "shardpact.json"), JSON.stringify({ ...file, url: undefined }));
    expect(await loadSettings({ url: "nats://z" }, {}, folder)).toMatchObject(ours);
  });

  it("names file and field when a file does not validate", async () => {
    await writeFile(join(folder, "shardpact.json"), JSON.stringify({ url: 7 }));
    await expect(loadSettings({}, {}, folder)).rejects.toThrow(/shardpact.json: url/);
    await expect(loadSettings({ config: "gone.json" }, {}, folder)).rejects.toMatchObject({ code: "config_invalid" });
  });
});
