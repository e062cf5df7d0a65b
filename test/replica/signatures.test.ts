/**
 * How a voter's signature reaches the log when those that it knew as voters are gone.
 */
import { expect, test } from "vitest";
import { encodeApi, SUBJECTS } from "../../src/model/api.ts";
import type { Digest } from "../../src/model/bytes.ts";
import { ShardpactError } from "../../src/model/errors.ts";
import type { MemberInfo } from "../../src/model/group.ts";
import { createSeed, publicKeyHex, signingKey } from "../../src/model/keys.ts";
import type { PlacedConfiguration } from "../../src/replica/configurations.ts";
import { realRuntime } from "../../src/replica/runtime.ts";
import { createSignatures, type Signatures, type SignaturesOptions } from "../../src/replica/signatures.ts";
import type { Message, Transport } from "../../src/transport/port.ts";
import { waitFor } from "../support/wait-for.ts";

const digest = (byte: string): Digest => `b3:${byte.repeat(32)}`;
const GROUP_ID = digest("a0");
const seed = createSeed();
const self: MemberInfo = { id: "r1", publicKey: publicKeyHex(seed) };
const other = (id: string): MemberInfo => ({ id, publicKey: publicKeyHex(createSeed()) });

/** r1's own configuration, and the one that it was left out of. */
const none = { votersOutgoing: [], learners: [], request: null };
const r2 = other("r2");
const first = { ...none, index: 0, number: 0, digest: digest("a0"), previous: null, voters: [self, r2] };
const last = { ...none, index: 7, number: 1, digest: digest("a1"), previous: first.digest, voters: [r2] };

/** The signatures of r1, which may reach `listening` only, and who was asked so far. */
function removed(
  all: readonly PlacedConfiguration[],
  listening: string,
  answerDiscovery: (handler: (message: Message) => void) => void = () => undefined,
): { readonly signatures: Signatures; readonly asked: readonly string[] } {
  const asked: string[] = [];
  let hear: (message: Message) => void = () => undefined;
  const transport: Pick<Transport, "inbox" | "subscribe" | "publish" | "request"> = {
    inbox: () => "_INBOX.r1",
    subscribe(subject, handler) {
      hear = handler;
      return { subject, close: () => undefined };
    },
    publish(subject, _data, reply) {
      if (subject === SUBJECTS.discover && reply === "_INBOX.r1") answerDiscovery(hear);
    },
    request(subject) {
      asked.push(subject);
      if (subject !== SUBJECTS.api("g", listening, "propose"))
        throw new ShardpactError("unavailable", "nobody listens");
      const error = { code: "unauthorized", message: "enough", retryable: false, hint: "", details: {} };
      return Promise.resolve(encodeApi({ ok: false, error, leader: null, index: 9 }));
    },
  };
  const signatures = createSignatures({
    config: { replica: "r1", genesis: { name: "g" } } as SignaturesOptions["config"],
    identity: { key: signingKey(seed), genesisBytes: new Uint8Array(0), groupId: GROUP_ID },
    runtime: realRuntime(),
    transport: transport as Transport,
    catalog: { chainAt: () => Promise.resolve("c".repeat(64)), outcome: () => Promise.resolve(null) },
    configurations: { at: () => last, newest: () => all.at(-1) ?? last, put: () => undefined, all: () => all },
    leader: () => null,
    submit: () => undefined,
  });
  return { signatures, asked };
}

async function expectAsked(asked: readonly string[], replica: string): Promise<void> {
  const subject = SUBJECTS.api("g", replica, "propose");
  const options = { timeoutMs: 3_000, what: `a question to ${replica}` };
  expect(await waitFor(() => asked.find((each) => each === subject), options)).toBe(subject);
}

test("a removed voter whose voters are gone brings its signature to a learner that it knew", async () => {
  const { signatures, asked } = removed([first, { ...last, learners: [other("r3")] }], "r3");
  try {
    await expectAsked(asked, "r3");
  } finally {
    signatures.stop();
  }
});

test("a removed voter that knows nobody who is left finds the members of today, and none of another group", async () => {
  const genesis = {
    format: "shardpact-group/1",
    name: "g",
    nonce: "00",
    engine: "raft",
    catalogLevel: 1,
    voters: [self, r2],
  };
  const reply = (replica: string, groupId: string): Message => ({
    subject: "_INBOX.r1",
    data: encodeApi({ group: "g", groupId, replica, leader: null, genesis, stores: [] }),
    reply: null,
  });
  const { signatures, asked } = removed([first, last], "r4", (hear) => {
    hear({ subject: "_INBOX.r1", data: new Uint8Array([0xc1]), reply: null });
    hear(reply("r9", digest("ff")));
    hear(reply("r4", GROUP_ID));
  });
  try {
    await expectAsked(asked, "r4");
    expect(asked).not.toContain(SUBJECTS.api("g", "r9", "propose"));
  } finally {
    signatures.stop();
  }
});
