import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { ConsensusError } from "../../../src/consensus/raft/index.ts";
import { type PaxosMessage, paxosEngine } from "../../../src/consensus/paxos/index.ts";
import { decodeConfiguration, encodeConfiguration } from "../node.ts";
import { THREE, TUNING } from "../single.ts";

const { encodeMessage, decodeMessage } = paxosEngine;

const integer = fc.integer({ min: 0, max: 2 ** 50 });
const index = fc.integer({ min: 0, max: 2 ** 40 });
const point = fc.record({ index, chain: fc.string({ maxLength: 64 }) });
const value = fc.oneof(
  fc.record({ kind: fc.constant("noop" as const), payload: fc.constant(new Uint8Array(0)) }),
  fc.record({
    kind: fc.constantFrom("config" as const, "command" as const),
    payload: fc.uint8Array({ maxLength: 40 }),
  }),
);
const values = fc.array(value, { maxLength: 5 });

const accept: fc.Arbitrary<PaxosMessage> = fc
  .record({ epoch: integer, previousIndex: index, commit: integer, values })
  .map(({ values: some, ...rest }) => ({
    kind: "accept",
    ...rest,
    entries: some.map((each, i) => ({ ...each, index: rest.previousIndex + 1 + i, epoch: rest.epoch })),
  }));
const promise: fc.Arbitrary<PaxosMessage> = fc
  .record({ epoch: fc.integer({ min: 1, max: 2 ** 50 }), asked: integer, from: index, commit: integer, values })
  .chain(({ values: some, ...rest }) =>
    fc
      .record({
        pre: fc.boolean(),
        granted: fc.boolean(),
        beyond: fc.nat(9),
        epochs: fc.array(fc.integer({ min: 1, max: rest.epoch }), { minLength: 5, maxLength: 5 }),
      })
      .map(({ pre, granted, beyond, epochs }) => ({
        kind: "promise" as const,
        ...rest,
        pre,
        granted,
        lastIndex: rest.from + some.length + beyond,
        entries: some.map((each, i) => ({ ...each, index: rest.from + i, epoch: epochs[i] as number })),
      })),
  );
const message: fc.Arbitrary<PaxosMessage> = fc.oneof(
  accept,
  promise,
  fc.record({
    kind: fc.constant("prepare" as const),
    epoch: integer,
    pre: fc.boolean(),
    handOver: fc.boolean(),
    from: integer,
    lastIndex: integer,
  }),
  fc.record({ kind: fc.constant("accepted" as const), epoch: integer, match: integer, voting: fc.boolean() }),
  fc.record({
    kind: fc.constant("gap" as const),
    epoch: integer,
    previousIndex: integer,
    match: integer,
    voting: fc.boolean(),
  }),
  fc.record({
    kind: fc.constant("heartbeat" as const),
    epoch: integer,
    commit: integer,
    round: integer,
    applied: fc.option(point),
  }),
  fc.record({
    kind: fc.constant("heartbeat_reply" as const),
    epoch: integer,
    round: integer,
    commit: integer,
    applied: fc.option(point),
    voting: fc.boolean(),
  }),
  fc.record({ kind: fc.constantFrom("refused" as const, "hand_over" as const), epoch: integer }),
  fc.record({ kind: fc.constant("halt" as const), epoch: integer, point }),
);

function decodeOrNull(bytes: Uint8Array): PaxosMessage | null {
  try {
    return decodeMessage(bytes);
  } catch (error) {
    expect(error).toBeInstanceOf(ConsensusError);
    expect((error as ConsensusError).fault).toBe("malformed_message");
    return null;
  }
}

describe("the bytes of Multi-Paxos messages", () => {
  it("decode to what was encoded", () => {
    fc.assert(
      fc.property(message, (given) => void expect(decodeMessage(encodeMessage(given))).toEqual(given)),
      {
        numRuns: 500,
      },
    );
  });

  it("every truncation and every extra byte is malformed", () => {
    fc.assert(
      fc.property(message, (given) => {
        const bytes = encodeMessage(given);
        for (let end = 0; end < bytes.length; end += 1) expect(decodeOrNull(bytes.subarray(0, end))).toBeNull();
        expect(decodeOrNull(Buffer.concat([bytes, Buffer.from([0])]))).toBeNull();
      }),
    );
  });

  it("any other bytes are a message that encodes to them, or malformed", () => {
    const changed = fc.tuple(message, fc.nat(), fc.integer({ min: 1, max: 255 })).map(([given, at, by]) => {
      const bytes = encodeMessage(given);
      bytes[at % bytes.length] = ((bytes[at % bytes.length] ?? 0) + by) % 256;
      return bytes;
    });
    fc.assert(
      fc.property(fc.oneof(changed, fc.uint8Array({ maxLength: 80 })), (bytes) => {
        const decoded = decodeOrNull(bytes);
        if (decoded !== null) expect(Buffer.from(encodeMessage(decoded))).toEqual(Buffer.from(bytes));
      }),
      { numRuns: 2_000 },
    );
  });

  it("a version of another build is refused by name", () => {
    const bytes = encodeMessage({ kind: "refused", epoch: 1 });
    bytes[0] = 2;
    expect(() => decodeMessage(bytes)).toThrow(/version 2/);
  });

  it("a number that the wire cannot hold is refused before it is sent", () => {
    expect(() => encodeMessage({ kind: "refused", epoch: 2 ** 51 })).toThrow(ConsensusError);
    expect(() => encodeMessage({ kind: "refused", epoch: 0.5 })).toThrow(ConsensusError);
  });

  it("no message that decodes can break an engine: it takes it, or stops by a named contradiction", () => {
    const from = fc.constantFrom("A", "B", "C", "X");
    fc.assert(
      fc.property(fc.array(fc.tuple(from, message), { maxLength: 12 }), (script) => {
        const engine = paxosEngine.create(
          {
            id: "A",
            hardState: { epoch: 0, votedFor: null },
            lastIndex: 0,
            epochRuns: [],
            applied: { index: 0, chain: "start" },
            configurations: [{ index: 0, configuration: THREE }],
            genesis: encodeConfiguration(THREE),
            voting: true,
          },
          { ...TUNING, decodeConfiguration },
        );
        for (const [sender, given] of script) {
          try {
            engine.step({ kind: "message", from: sender, message: given });
          } catch (error) {
            expect(error).toBeInstanceOf(ConsensusError);
            return;
          }
          engine.step({ kind: "tick" });
        }
      }),
      { numRuns: 500 },
    );
  });
});
