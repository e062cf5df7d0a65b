/**
 * How a configuration is proven from the one before, and every way in which a chain can be forged.
 */
import { describe, expect, test } from "vitest";
import type { Digest } from "../../src/model/bytes.ts";
import { toHex } from "../../src/model/bytes.ts";
import type { ConfigurationPayload, MemberInfo } from "../../src/model/group.ts";
import { createSeed, publicKeyHex, sign } from "../../src/model/keys.ts";
import { type ConfigurationLink, followLink, statementDigest, type TrustedLink } from "../../src/merkle/certificate.ts";
import { configurationBytes, configurationDigest, readConfiguration } from "../../src/merkle/configuration.ts";

const GROUP: Digest = `b3:${"ab".repeat(32)}`;
const CHAIN = "c".repeat(64);
const seeds = new Map(["r1", "r2", "r3", "r4", "x1", "x2", "x3"].map((id) => [id, createSeed()]));
const member = (id: string): MemberInfo => ({ id, publicKey: publicKeyHex(seeds.get(id) ?? "") });
const members = (...ids: string[]): MemberInfo[] => ids.map(member);

const first: TrustedLink = { number: 0, digest: GROUP, voters: members("r1", "r2", "r3"), votersOutgoing: [] };

function payload(over: Partial<ConfigurationPayload> = {}): Uint8Array {
  return configurationBytes({
    format: "shardpact-configuration/1",
    groupId: GROUP,
    number: 1,
    previous: GROUP,
    voters: members("r1", "r2", "r4"),
    votersOutgoing: members("r1", "r2", "r3"),
    learners: [],
    request: null,
    ...over,
  });
}

interface Signed {
  readonly by: readonly string[];
  readonly bytes?: Uint8Array;
  readonly index?: number;
  readonly chain?: string;
  /** What they sign, where it is not what is handed out. */
  readonly signed?: { readonly index?: number; readonly chain?: string; readonly groupId?: string };
}

function link({ by, bytes = payload(), index = 7, chain = CHAIN, signed = {} }: Signed): ConfigurationLink {
  const statement = { groupId: GROUP, index, chain, ...signed, configuration: configurationDigest(bytes) };
  const signatures = by.map((id) => ({
    replica: id,
    signature: toHex(sign(seeds.get(id) ?? "", statementDigest(statement))),
  }));
  return { index, chain, payload: bytes, signatures };
}

describe("a link", () => {
  test("is followed when a majority of the voters before it signed it", () => {
    const next = followLink(first, GROUP, link({ by: ["r1", "r3"] }));
    expect(next).toMatchObject({
      number: 1,
      voters: members("r1", "r2", "r4"),
      digest: configurationDigest(payload()),
    });
  });

  test.each<[string, Signed]>([
    ["one voter of three", { by: ["r1"] }],
    ["one voter, twice", { by: ["r1", "r1"] }],
    ["those that it brings in", { by: ["r4", "r1"] }],
    ["strangers", { by: ["x1", "x2", "x3"] }],
    ["nobody", { by: [] }],
    ["a majority, for another index", { by: ["r1", "r2"], signed: { index: 8 } }],
    ["a majority, for another history", { by: ["r1", "r2"], signed: { chain: "d".repeat(64) } }],
    ["a majority, for another group", { by: ["r1", "r2"], signed: { groupId: `b3:${"cd".repeat(32)}` } }],
  ])("is not proven by %s", (_who, signed) => {
    expect(followLink(first, GROUP, link(signed))).toBeNull();
  });

  test("a name is nothing: only the key that the configuration before gives it counts", () => {
    const forged = link({ by: ["r1", "x2"] });
    const renamed = forged.signatures.map((each) => (each.replica === "x2" ? { ...each, replica: "r2" } : each));
    expect(followLink(first, GROUP, { ...forged, signatures: renamed })).toBeNull();
  });

  test("out of a joint configuration needs majorities of both halves (thesis §4.3)", () => {
    const joint: TrustedLink = {
      number: 1,
      digest: configurationDigest(payload()),
      voters: members("r1", "r4", "x1"),
      votersOutgoing: members("r1", "r2", "r3"),
    };
    const bytes = payload({
      number: 2,
      previous: joint.digest as Digest,
      voters: joint.voters as MemberInfo[],
      votersOutgoing: [],
    });
    expect(followLink(joint, GROUP, link({ bytes, by: ["r1", "r4"] })), "one half").toBeNull();
    expect(followLink(joint, GROUP, link({ bytes, by: ["r1", "r2", "r3"] })), "the other half").toBeNull();
    expect(followLink(joint, GROUP, link({ bytes, by: ["r1", "r2", "r4"] }))).toMatchObject({ number: 2 });
  });

  test("that does not follow, or that leaves one out, is a fork", () => {
    const other = payload({ previous: `b3:${"0".repeat(64)}` });
    const skips = payload({ number: 2 });
    for (const bytes of [other, skips]) {
      expect(() => followLink(first, GROUP, link({ bytes, by: ["r1", "r2", "r3"] }))).toThrow(
        expect.objectContaining({ code: "group_forked" }),
      );
    }
  });
});

describe("a configuration's bytes", () => {
  test("read back as they were written, in one encoding only (I19)", () => {
    const bytes = payload({ ordinals: { of: { r1: 1, r2: 2, r4: 4 }, last: 4 } });
    expect(readConfiguration(bytes)).toMatchObject({ number: 1, ordinals: { last: 4 } });
    const text = new TextDecoder().decode(bytes);
    for (const other of [` ${text}`, text.replace('"learners":[],', '"learners":[], '), text.slice(1), "null", "{}"]) {
      expect(() => readConfiguration(new TextEncoder().encode(other))).toThrow(
        expect.objectContaining({ code: "invalid_argument" }),
      );
    }
  });
});
