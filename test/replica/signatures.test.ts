/**
 * How a voter's signature reaches the log when those that it knew as voters are gone.
 */
import { expect, test } from "vitest";
import { decodeApi, encodeApi, proposeReply, SUBJECTS } from "../../src/model/api.ts";
import type { Digest } from "../../src/model/bytes.ts";
import { ShardpactError } from "../../src/model/errors.ts";
import type { MemberInfo } from "../../src/model/group.ts";
import { createSeed, publicKeyHex, signingKey } from "../../src/model/keys.ts";
import type { PlacedConfiguration } from "../../src/replica/configurations.ts";
import { realRuntime } from "../../src/replica/runtime.ts";
import { createSignatures, type SignaturesOptions } from "../../src/replica/signatures.ts";
import { waitFor } from "../support/wait-for.ts";

const digest = (byte: string): Digest => `b3:${byte.repeat(32)}`;
const seed = createSeed();
const self: MemberInfo = { id: "r1", publicKey: publicKeyHex(seed) };
const other = (id: string): MemberInfo => ({ id, publicKey: publicKeyHex(createSeed()) });

test("a removed voter whose voters are gone brings its signature to a learner that it knew", async () => {
  const [r2, r3] = [other("r2"), other("r3")];
  const none = { votersOutgoing: [], request: null };
  const first = {
    ...none,
    index: 0,
    number: 0,
    digest: digest("a0"),
    previous: null,
    voters: [self, r2],
    learners: [],
  };
  const last = {
    ...first,
    index: 7,
    number: 1,
    digest: digest("a1"),
    previous: first.digest,
    voters: [r2],
    learners: [r3],
  };
  const all: readonly PlacedConfiguration[] = [first, last];
  const asked: string[] = [];
  const signatures = createSignatures({
    config: { replica: "r1", genesis: { name: "g" } } as SignaturesOptions["config"],
    identity: { key: signingKey(seed), genesisBytes: new Uint8Array(0), groupId: digest("a0") },
    runtime: realRuntime(),
    transport: {
      request: (subject: string) => {
        asked.push(subject);
        if (subject !== SUBJECTS.api("g", "r3", "propose")) throw new ShardpactError("unavailable", "nobody listens");
        const error = { code: "unauthorized", message: "enough", retryable: false, hint: "", details: {} };
        const reply = { ok: false, error, leader: null, index: 9 };
        return Promise.resolve(encodeApi(decodeApi(proposeReply, encodeApi(reply as never))));
      },
    } as unknown as SignaturesOptions["transport"],
    catalog: { chainAt: () => Promise.resolve("c".repeat(64)), outcome: () => Promise.resolve(null) },
    configurations: { at: () => last, newest: () => last, put: () => undefined, all: () => all },
    leader: () => null,
    submit: () => undefined,
  });
  try {
    const subject = SUBJECTS.api("g", "r3", "propose");
    const options = { timeoutMs: 3_000, what: "a question to the learner" };
    expect(await waitFor(() => asked.find((each) => each === subject), options)).toBe(subject);
  } finally {
    signatures.stop();
  }
});
