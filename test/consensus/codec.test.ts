import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { ConsensusError, type RaftMessage, raftEngine } from "../../src/consensus/raft/index.ts";

const { encodeMessage, decodeMessage } = raftEngine;
const integer = fc.oneof(fc.nat(), fc.integer({ min: 0, max: 2 ** 50 }));
const flag = fc.boolean();
const point = fc.record({ index: integer, chain: fc.string({ maxLength: 64 }) });
const payload = fc.uint8Array({ maxLength: 64 });

const append: fc.Arbitrary<RaftMessage> = fc
  .tuple(fc.nat(), fc.array(fc.tuple(fc.nat({ max: 3 }), fc.boolean(), payload), { maxLength: 12 }), fc.nat(), integer)
  .map(([previousIndex, steps, previousEpochGap, commit]) => {
    const previousEpoch = previousIndex === 0 ? 0 : 1 + previousEpochGap;
    let epoch = Math.max(1, previousEpoch);
    const entries = steps.map(([gap, command, bytes], i) => {
      epoch += gap;
      const kind = command ? ("command" as const) : ("noop" as const);
      return { index: previousIndex + 1 + i, epoch, kind, payload: command ? bytes : new Uint8Array(0) };
    });
    return { kind: "append", epoch, previousIndex, previousEpoch, commit, entries };
  });

const message: fc.Arbitrary<RaftMessage> = fc.oneof(
  append,
  fc.record({
    kind: fc.constant("vote_request" as const),
    epoch: integer,
    pre: flag,
    transfer: flag,
    lastIndex: integer,
    lastEpoch: integer,
  }),
  fc.record({
    kind: fc.constant("vote_reply" as const),
    epoch: integer,
    requestEpoch: integer,
    pre: flag,
    granted: flag,
  }),
  fc.record({ kind: fc.constant("append_accepted" as const), epoch: integer, match: integer, voting: flag }),
  fc.record({
    kind: fc.constant("append_rejected" as const),
    epoch: integer,
    previousIndex: integer,
    hintIndex: integer,
    hintEpoch: integer,
    voting: flag,
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
    voting: flag,
  }),
  fc.record({ kind: fc.constantFrom("stale" as const, "timeout_now" as const), epoch: integer }),
  fc.record({ kind: fc.constant("halt" as const), epoch: integer, point }),
  fc.record({
    kind: fc.constant("removed" as const),
    epoch: integer,
    committedIndex: integer,
    committedEpoch: integer,
  }),
);

describe("the codec", () => {
  it("gives back what it was given", () => {
    fc.assert(
      fc.property(message, (given) => {
        expect(decodeMessage(encodeMessage(given))).toEqual(given);
      }),
      { numRuns: 2000 },
    );
  });

  it("refuses every truncation and every byte too many", () => {
    fc.assert(
      fc.property(message, (given) => {
        const bytes = encodeMessage(given);
        for (let length = 0; length < bytes.byteLength; length += 1) {
          expect(() => decodeMessage(bytes.subarray(0, length))).toThrow(ConsensusError);
        }
        expect(() => decodeMessage(new Uint8Array([...bytes, 0]))).toThrow(ConsensusError);
      }),
      { numRuns: 100 },
    );
  });

  it("takes any bytes: either a message that encodes to the same bytes, or malformed_message", () => {
    const flips = fc.array(fc.tuple(fc.nat(), fc.nat({ max: 255 })), { minLength: 1, maxLength: 4 });
    const damaged = fc.tuple(message, flips).map(([given, changes]) => {
      const bytes = encodeMessage(given);
      for (const [at, value] of changes) bytes[at % bytes.byteLength] = value;
      return bytes;
    });
    const random = fc.uint8Array({ maxLength: 80 }).map((bytes) => new Uint8Array([1, ...bytes]));
    fc.assert(
      fc.property(fc.oneof(damaged, random), (bytes) => {
        let decoded: RaftMessage;
        try {
          decoded = decodeMessage(bytes);
        } catch (error) {
          expect(error).toBeInstanceOf(ConsensusError);
          expect((error as ConsensusError).fault).toBe("malformed_message");
          return;
        }
        expect(Buffer.from(encodeMessage(decoded)).equals(Buffer.from(bytes))).toBe(true);
      }),
      { numRuns: 5000 },
    );
  });

  it("whatever decodes, an engine survives", () => {
    const from = fc.constantFrom("B", "C", "stranger");
    fc.assert(
      fc.property(fc.array(fc.tuple(from, message), { maxLength: 20 }), (messages) => {
        const engine = raftEngine.create(
          {
            id: "A",
            hardState: { epoch: 0, votedFor: null },
            lastIndex: 0,
            epochRuns: [],
            applied: { index: 0, chain: "" },
            configurations: [
              { index: 0, configuration: { voters: ["A", "B", "C"], votersOutgoing: [], learners: [] } },
            ],
            genesis: new Uint8Array(0),
            voting: true,
          },
          {
            heartbeatTicks: 1,
            electionTicksMin: 3,
            electionTicksMax: 6,
            appendEntriesMax: 8,
            appendBytesMax: 512,
            inflightAppendsMax: 4,
            proposalsInFlightMax: 16,
            logCacheBytesMax: 1 << 20,
            randomU32: () => 0,
            decodeConfiguration: () => ({ voters: ["A", "B", "C"], votersOutgoing: [], learners: [] }),
          },
        );
        for (const [sender, each] of messages) {
          engine.step({ kind: "message", from: sender, message: each });
          engine.step({ kind: "tick" });
        }
      }),
      { numRuns: 1000 },
    );
  });
});
