/**
 * Golden transcripts of Multi-Paxos: the situations that "Paxos Made Simple" and Howard and Mortier (2020) describe.
 * A ballot is written round.proposer. A change in a file under traces/ is a change of behaviour: read it like code.
 */
import { describe, expect, it } from "vitest";
import type { Configuration } from "../../../src/consensus/engine.ts";
import { proposerOf, roundOf } from "../../../src/consensus/paxos/ballot.ts";
import { type PaxosMessage, paxosEngine } from "../../../src/consensus/paxos/index.ts";
import { rangeOf, type Transcript, transcriptOf, type TranscriptSetup, type Wording } from "../transcript.ts";
import { ballot } from "./single.ts";

const NAMES = new Map(["A", "B", "C", "D", "E"].map((id, i) => [i + 1, id]));

function epochText(epoch: number): string {
  return epoch === 0 ? "0" : `${roundOf(epoch)}.${proposerOf(NAMES, epoch)}`;
}

const PAXOS: Wording<PaxosMessage> = { kind: paxosEngine, epoch: epochText, message: describeMessage };

function describeMessage(message: PaxosMessage): string {
  const epoch = epochText(message.epoch);
  switch (message.kind) {
    case "prepare": {
      const kind = message.pre ? "would promise?" : message.handOver ? "prepare (hand-over)" : "prepare";
      return `${kind} ${epoch} from ${message.from}, slots end ${message.lastIndex}`;
    }
    case "promise": {
      const verb = message.pre ? (message.granted ? "would" : "would not") : message.granted ? "promise" : "refusal";
      const told = message.entries.length === 0 ? "nothing" : rangeOf(message.entries, epochText);
      return `${verb} ${epochText(message.asked)}, promised ${epoch}, told ${told}, chosen ${message.commit}`;
    }
    case "accept": {
      const slots = message.entries.length === 0 ? "nothing" : message.entries.map(({ index }) => index).join(" ");
      return `accept ${epoch} after ${message.previousIndex}: ${slots}, chosen ${message.commit}`;
    }
    case "accepted":
      return `accepted ${epoch} up to ${message.match}`;
    case "gap":
      return `gap ${epoch}: not after ${message.previousIndex}, holds ${message.match}`;
    case "heartbeat":
      return `heartbeat ${epoch}, round ${message.round}, chosen ${message.commit}`;
    case "heartbeat_reply":
      return `heartbeat reply ${epoch}, round ${message.round}`;
    default:
      return `${message.kind} ${epoch}`;
  }
}

function voters(...ids: string[]): Configuration {
  return { voters: ids, votersOutgoing: [], learners: [] };
}

const THREE = voters("A", "B", "C");

function script(
  setup: Omit<TranscriptSetup, "configuration"> & { readonly configuration?: Configuration },
): Transcript {
  return transcriptOf({ configuration: THREE, ...setup }, PAXOS);
}

function elect(run: Transcript, id: string): void {
  run.tick(id, 10);
  run.settle();
}

function texts(run: Transcript, id: string): string[] {
  const entries = run.nodes.get(id)?.disk.entries ?? [];
  return entries.map(({ payload, kind }) => (kind === "command" ? new TextDecoder().decode(payload) : kind));
}

async function expectTrace(run: Transcript, name: string): Promise<void> {
  await expect(run.text()).toMatchFileSnapshot(`traces/${name}.txt`);
}

describe("traces", () => {
  it("duelling proposers: the lower ballot is refused, and both end with the one value (PMS §2.4)", async () => {
    const run = script({});
    run.note("A and B both time out; each would be promised by C");
    run.tick("A", 10);
    run.tick("B", 10);
    run.settle(({ message }) => message.kind === "promise" || (message.kind === "prepare" && message.pre));
    run.note("Both prepare round 1; B's ballot is the higher one");
    run.tick("A");
    run.tick("B");
    run.settle();
    run.tick("A", 10);
    run.settle();
    run.tick("B");
    run.settle();
    run.logs();
    const leaders = [...run.nodes.values()].filter(({ engine }) => engine?.status().role === "leader");
    expect(leaders).toHaveLength(1);
    expect(new Set(["A", "B", "C"].map((id) => texts(run, id).join()))).toEqual(new Set(["config"]));
    await expectTrace(run, "duelling-proposers");
  });

  it("phase 1 finds a value that was chosen, although its leader never said so (PMS §2.2, P2c)", async () => {
    const run = script({});
    elect(run, "A");
    run.note("A proposes x; B accepts it: it is chosen. A crashes before it hears that");
    run.propose("A", "x");
    run.deliver(1, ({ to, message }) => to === "B" && message.kind === "accept");
    run.crash("A");
    run.lose();
    run.note("C never saw x, and leads with B's promise");
    run.tick("B", 10);
    run.lose();
    elect(run, "C");
    run.logs();
    expect(run.nodes.get("C")?.engine?.status()).toMatchObject({ role: "leader", commit: 2, committedInEpoch: true });
    expect(texts(run, "C")).toEqual(["config", "x"]);
    run.note("A comes back, and keeps x");
    run.restart("A");
    run.tick("C");
    run.settle();
    expect(texts(run, "A")).toEqual(["config", "x"]);
    await expectTrace(run, "chosen-value-recovered");
  });

  it("of two accepted values the one of the higher ballot is proposed again (PMS §2.2)", async () => {
    const old = ballot(1, "A");
    const newer = ballot(2, "C");
    const run = script({
      configuration: voters("A", "B", "C", "D", "E"),
      logs: { A: [old, old], B: [old], C: [old, newer], D: [], E: [] },
      epochs: { B: newer },
    });
    run.note("Slot 2 was accepted by A in 1.A, and by C in 2.C: neither is chosen. B needs both of them");
    for (const id of ["D", "E"]) run.crash(id);
    elect(run, "B");
    run.logs();
    for (const id of ["A", "B", "C"]) expect(texts(run, id)[1]).toBe(`2@${newer}`);
    await expectTrace(run, "highest-ballot-wins");
  });

  it("pipelined accepts that were cut off leave no gap to fill: every log is contiguous", async () => {
    const b1 = ballot(1, "A");
    const b2 = ballot(2, "B");
    const run = script({
      configuration: voters("A", "B", "C", "D", "E"),
      logs: { A: [b1, b1, b1, b1, b1], B: [b1, b2, b2], C: [b1, b1], D: [b1, b2], E: [] },
      epochs: { C: b2, E: b2 },
    });
    run.note("C finds slots up to 5 with A's report, up to 3 without: no slot between is open, no no-op is needed");
    run.crash("A");
    elect(run, "C");
    run.logs();
    expect(texts(run, "C")).toHaveLength(3);
    run.note("A comes back: slots 4 and 5 were never chosen, and give way to what is proposed next");
    run.restart("A");
    run.propose("C", "y");
    run.tick("C");
    run.settle();
    run.logs();
    expect(texts(run, "A").slice(3)).toEqual(["y", `5@${b1}`]);
    expect(run.nodes.get("A")?.commit).toBe(4);
    await expectTrace(run, "no-gap");
  });

  it("a leader that lagged fetches what is chosen, part by part, before anything else (HM §3)", async () => {
    const run = script({ tuning: { appendEntriesMax: 2 } });
    elect(run, "A");
    run.note("C hears nothing while five values are chosen");
    for (const text of ["v", "w", "x", "y", "z"]) {
      run.propose("A", text);
      run.settle(({ to, from }) => to !== "C" && from !== "C");
    }
    run.tick("A");
    run.settle(({ to, from }) => to !== "C" && from !== "C");
    run.note("A crashes; C asks B for everything that it lacks, two slots at a time");
    run.crash("A");
    run.lose();
    run.tick("B", 10);
    run.lose();
    elect(run, "C");
    run.logs();
    expect(run.nodes.get("C")?.engine?.status()).toMatchObject({ role: "leader", commit: 6, committedInEpoch: true });
    expect(texts(run, "C")).toEqual(["config", "v", "w", "x", "y", "z"]);
    await expectTrace(run, "lagging-leader");
  });

  it("a read right after an election waits until what phase 1 found is chosen (etcd 7331)", async () => {
    const b1 = ballot(1, "B");
    const run = script({ logs: { A: [b1, b1], B: [b1, b1], C: [b1] } });
    run.tick("A", 10);
    run.settle(({ message }) => message.kind === "prepare" || message.kind === "promise");
    run.note("A leads, and does not know yet what is chosen");
    run.read("A", 1);
    run.tick("A");
    run.note("Heartbeats are answered: leadership alone does not answer the read");
    run.settle(({ message }) => message.kind === "heartbeat" || message.kind === "heartbeat_reply");
    expect(run.text()).not.toContain("read #1 ready");
    run.note("The suffix is chosen, the read's round follows");
    run.tick("A");
    run.settle();
    expect(run.text()).toContain("read #1 ready at 2");
    await expectTrace(run, "read-after-election");
  });

  it("the lead moves without a timeout, and proposals wait meanwhile", async () => {
    const run = script({});
    elect(run, "A");
    run.propose("A", "x");
    run.lose();
    run.note("B lacks the entry: it is brought up to date first");
    run.transfer("A", "B");
    run.propose("A", "y");
    run.tick("A");
    run.settle();
    expect(run.nodes.get("B")?.engine?.status()).toMatchObject({ role: "leader", epoch: ballot(2, "B") });
    expect(run.nodes.get("A")?.engine?.status()).toMatchObject({ role: "follower", leader: "B" });
    await expectTrace(run, "hand-over");
  });

  it("a replica that comes back from a partition does not disturb", async () => {
    const run = script({});
    elect(run, "A");
    run.note("C hears nobody for three election timeouts: it promises nothing to itself");
    run.tick("C", 30);
    run.lose();
    expect(run.nodes.get("C")?.engine?.status().epoch).toBe(ballot(1, "A"));
    run.note("C is back, and asks once more before it hears the leader");
    run.tick("C", 10);
    run.settle();
    run.tick("A");
    run.settle();
    expect(run.nodes.get("C")?.engine?.status()).toMatchObject({
      role: "follower",
      leader: "A",
      epoch: ballot(1, "A"),
    });
    await expectTrace(run, "rejoin");
  });

  it("a configuration at slot i decides from i + α; a leader that is replaced leads until it is in force (PMS §3)", async () => {
    const run = script({ others: ["D"], tuning: { alpha: 3 } });
    elect(run, "A");
    run.note("D joins as a learner: slot 2 says so, no-ops fill the slots up to 5, which brings it into force");
    run.configure("A", { kind: "add_learner", id: "D" });
    run.settle();
    run.tick("A");
    run.settle();
    run.note("D takes A's vote in slot 6: A, B and C decide up to slot 8, B, C and D from slot 9 on");
    run.configure("A", { kind: "replace", id: "A", by: "D" });
    run.settle(({ message }) => message.kind !== "hand_over");
    expect(run.nodes.get("A")?.engine?.status()).toMatchObject({ role: "follower", commit: 9 });
    expect(texts(run, "B")).toEqual(["config", "config", "noop", "noop", "noop", "config", "noop", "noop", "noop"]);
    run.note("A is out, and keeps quiet; B and D go on without it");
    run.tick("A", 40);
    run.settle();
    run.crash("A");
    run.crash("C");
    run.tick("D", 10);
    run.lose();
    elect(run, "B");
    run.logs();
    const status = run.nodes.get("B")?.engine?.status();
    expect(status).toMatchObject({ role: "leader", committedInEpoch: true });
    expect(status?.configuration).toMatchObject({ voters: ["B", "C", "D"], ordinals: { of: { D: 4 }, last: 4 } });
    await expectTrace(run, "configuration-change");
  });

  it("a leader dies in the middle of a change: the next one finds it, asks the voters of both, and ends it (PMS §3)", async () => {
    const run = script({ configuration: { ...THREE, learners: ["D"] }, tuning: { alpha: 3 } });
    elect(run, "A");
    run.tick("A");
    run.settle();
    run.note("D takes C's vote in slot 2; only D hears of it before A crashes");
    run.configure("A", { kind: "replace", id: "C", by: "D" });
    run.settle(({ from, to, message }) => [from, to].includes("D") && message.kind.startsWith("accept"));
    run.crash("A");
    run.note("D is a voter of what it was sent: it asks B and C, who decide slot 2, for both configurations");
    run.tick("B", 10);
    run.tick("C", 10);
    run.lose();
    elect(run, "D");
    run.tick("D");
    run.settle();
    run.logs();
    const status = run.nodes.get("D")?.engine?.status();
    expect(status).toMatchObject({ role: "leader", configuration: { voters: ["A", "B", "D"] } });
    await expectTrace(run, "change-recovered");
  });

  it("an acceptor behind the log's base gets a snapshot, then slots again, and keeps what it accepted above", async () => {
    const run = script({});
    elect(run, "A");
    run.crash("C");
    run.propose("A", "x", "y");
    run.settle(({ to }) => to !== "C");
    run.note("A keeps nothing but its last slot; C comes back with the first only");
    run.compact("A", 2);
    run.restart("C");
    for (let i = 0; i < 2; i += 1) {
      run.tick("A");
      run.settle();
    }
    run.note("While the snapshot is on its way, C gets heartbeats only");
    run.propose("A", "z");
    run.settle();
    run.ship("A");
    run.settle();
    run.logs();
    expect(run.nodes.get("C")?.commit).toBe(4);
    await expectTrace(run, "snapshot-to-a-lagging-acceptor");
  });

  it("one that missed its removal asks, is told, and keeps quiet (thesis §4.2.3)", async () => {
    const run = script({ configuration: voters("A", "B", "C", "D"), tuning: { alpha: 3 } });
    elect(run, "A");
    run.note("D hears nothing of its removal");
    run.configure("A", { kind: "remove", id: "D" });
    run.settle(({ from, to }) => from !== "D" && to !== "D");
    run.tick("A");
    run.settle(({ from, to }) => from !== "D" && to !== "D");
    run.note("It asks, and is told by those who know; it believes that, having nothing that says otherwise");
    run.tick("D", 10);
    run.settle(({ from, to }) => [from, to].includes("D") && ![from, to].includes("A"));
    run.tick("D", 40);
    expect(run.nodes.get("A")?.engine?.status()).toMatchObject({
      role: "leader",
      configuration: { voters: ["A", "B", "C"] },
    });
    expect(run.text()).toContain("D is out since");
    await expectTrace(run, "removed-is-told");
  });
});
