import { describe, expect, it } from "vitest";
import { agreeOn, runCalls } from "../../src/client/run-calls.ts";
import type { ConfirmedVersion, RunEpoch } from "../../src/client/types.ts";
import type { CatalogAnswer, CatalogQuery, VersionAnswer } from "../../src/model/api.ts";
import type { Command } from "../../src/model/commands.ts";
import { ShardpactError } from "../../src/model/errors.ts";
import { digestOf } from "../support/catalog.ts";
import { startResponders, type Responders } from "./responders.ts";

const ORDER = { alg: "sp-order/1", strength: "none", seed: "0", n: 1, K: 1, g: 1 } as const;
const epochOf = (epoch: number, version: number): RunEpoch => ({
  ...{ epoch, version, root: digestOf(`v${version}`), order: ORDER },
});

function versionOf(version: number, revoked = false): VersionAnswer {
  const digest = digestOf(`v${version}`);
  const revocation = { subject: `live@v${version}`, index: 9, timeMs: 0, actor: "ada", reason: "labels" };
  return {
    ...{ dataset: "live", version, root: digest, index: version, timeMs: 0, actor: "ada", message: "" },
    ...{ treeHash: digest, pageCount: 1, schema: digest, classes: digest, splits: ["train"], totals: [] },
    ...{ splitRule: { kind: "none" }, revocation: revoked ? revocation : null },
  };
}

/** What a group with these versions answers; `epochs` are those that the majority knows. */
function groupOf(versions: readonly VersionAnswer[], epochs: RunEpoch[] = []) {
  const group = startResponders(3);
  const asked: CatalogQuery[] = [];
  const proposed: Command[] = [];
  group.answer = (query): CatalogAnswer => {
    asked.push(query);
    if (query.kind === "versions")
      return { kind: "rows", rows: versions.filter((v) => v.version > query.after).slice(0, query.limit) };
    if (query.kind !== "run_epochs") throw new Error(`nobody asks for ${query.kind}`);
    const known = epochs.filter(({ epoch }) => epoch > query.after).slice(0, query.limit);
    return { kind: "rows", rows: known.map(({ order: orderSpec, ...row }) => ({ run: query.run, ...row, orderSpec })) };
  };
  for (const replica of group.replicas) {
    replica.answerPropose = (command) => {
      proposed.push(command);
      return { ok: true, index: 8, retry: false, result: {} };
    };
  }
  return { group, asked, proposed };
}

/** Opens what is not revoked, by number or as head. */
function callsOf(group: Responders, versions: readonly VersionAnswer[], version = 1) {
  const opened: number[] = [];
  const own = versions[version - 1] as VersionAnswer;
  const { following } = runCalls(group.session(), own, async (target) => {
    const wanted = target.kind === "version" ? versions[target.version - 1] : versions.at(-1);
    if (!wanted || wanted.revocation) throw new ShardpactError("revoked", "revoked");
    opened.push(wanted.version);
    return { version: wanted.version, root: wanted.root } as ConfirmedVersion;
  });
  return { following, opened };
}

describe("the newest version", () => {
  it("is the head, in one question", async () => {
    const versions = [versionOf(1), versionOf(2)];
    const { group, asked } = groupOf(versions);
    expect((await callsOf(group, versions).following.newest()).version).toBe(2);
    expect(asked).toEqual([]);
  });

  it("is the highest that is not revoked, however many are", async () => {
    const versions = Array.from({ length: 450 }, (_, i) => versionOf(i + 1, i + 1 > 210));
    const { group, asked } = groupOf(versions);
    expect((await callsOf(group, versions, 5).following.newest()).version).toBe(210);
    expect(new Set(asked.map((query) => (query.kind === "versions" ? query.after : -1)))).toEqual(
      new Set([5, 205, 405]),
    );
  });

  it("is never an older one: when all from the present on are revoked, it is `revoked`", async () => {
    const versions = [versionOf(1), versionOf(2, true), versionOf(3, true)];
    const { group } = groupOf(versions);
    await expect(callsOf(group, versions, 2).following.newest()).rejects.toMatchObject({ code: "revoked" });
    expect((await callsOf(group, versions, 1).following.newest()).version).toBe(1);
  });
});

describe("what a run agreed on", () => {
  const versions = [versionOf(1), versionOf(2), versionOf(3)];
  const choose = async () => epochOf(4, 3);

  it("is asked for before anything is proposed", async () => {
    const { group, proposed } = groupOf(versions, [epochOf(4, 2), epochOf(5, 3)]);
    const { following } = callsOf(group, versions);
    expect(await agreeOn(following, "r", 4, choose)).toEqual(epochOf(4, 2));
    expect(proposed).toEqual([]);
    expect(await following.agreed("r", 3)).toBeNull(); // an answer about a later epoch is none about this one
  });

  it("is what a majority says, not what the leader answered to the proposal", async () => {
    const epochs: RunEpoch[] = [];
    const { group, proposed } = groupOf(versions, epochs);
    for (const replica of group.replicas) {
      const propose = replica.answerPropose;
      replica.answerPropose = (command, bytes) => {
        epochs.push(epochOf(4, 2)); // another rank was faster
        return propose?.(command, bytes) ?? null;
      };
    }
    const { following } = callsOf(group, versions);
    expect(await agreeOn(following, "r", 4, choose)).toEqual(epochOf(4, 2));
    expect(proposed).toMatchObject([
      {
        kind: "epoch.cut",
        body: { run: "r", epoch: 4, dataset: "live", from: 1, version: 3, root: versions[2]!.root },
      },
    ]);
  });

  it("that a majority does not know of is no agreement", async () => {
    const { group } = groupOf(versions);
    const { following } = callsOf(group, versions);
    await expect(agreeOn(following, "r", 4, choose)).rejects.toMatchObject({ code: "replica_diverged" });
  });

  it("is not opened with another root", async () => {
    const { group } = groupOf(versions);
    const { following } = callsOf(group, versions);
    expect((await following.open(epochOf(4, 2))).version).toBe(2);
    await expect(following.open({ ...epochOf(4, 2), root: digestOf("x") })).rejects.toMatchObject({
      code: "group_forked",
    });
  });
});
