/**
 * Golden transcripts of the situations that the Raft paper and thesis draw. A change in a file under traces/ is a change
 * of behaviour: read it like code.
 */
import { describe, expect, it } from "vitest";
import type { Configuration } from "../../src/consensus/engine.ts";
import { transcript, type Transcript } from "./transcript.ts";

function voters(...ids: string[]): Configuration {
  return { voters: ids, votersOutgoing: [], learners: [] };
}

function elect(run: Transcript, id: string): void {
  run.tick(id, 10);
  run.settle();
}

async function expectTrace(run: Transcript, name: string): Promise<void> {
  await expect(run.text()).toMatchFileSnapshot(`traces/${name}.txt`);
}

function committed(run: Transcript, id: string): number {
  return run.nodes.get(id)?.commit ?? -1;
}

describe("traces", () => {
  it("Figure 7: a new leader brings every possible follower to its log (Raft §5.3)", async () => {
    const run = transcript({
      configuration: voters("L", "a", "b", "c", "d", "e", "f"),
      logs: {
        L: [1, 1, 1, 4, 4, 5, 5, 6, 6, 6],
        a: [1, 1, 1, 4, 4, 5, 5, 6, 6],
        b: [1, 1, 1, 4],
        c: [1, 1, 1, 4, 4, 5, 5, 6, 6, 6, 6],
        d: [1, 1, 1, 4, 4, 5, 5, 6, 6, 6, 7, 7],
        e: [1, 1, 1, 4, 4, 4, 4],
        f: [1, 1, 1, 2, 2, 2, 3, 3, 3, 3, 3],
      },
      epochs: { L: 7 },
    });
    run.note("L campaigns for epoch 8: c and d refuse, their logs are newer");
    elect(run, "L");
    run.note("All logs are equal");
    run.tick("L");
    run.settle();
    run.logs();
    for (const { disk } of run.nodes.values()) {
      expect(disk.entries.map(({ epoch }) => epoch)).toEqual([1, 1, 1, 4, 4, 5, 5, 6, 6, 6, 8]);
    }
    await expectTrace(run, "figure-7");
  });

  it("Figure 8: an entry of an earlier epoch on a majority is not committed by counting (Raft §5.4.2)", async () => {
    const run = transcript({
      configuration: voters("S1", "S2", "S3", "S4", "S5"),
      logs: { S1: [1, 2], S2: [1, 2], S3: [1], S4: [1], S5: [1, 3] },
      epochs: { S1: 3, S2: 3, S3: 3, S4: 3, S5: 3 },
      tuning: { appendEntriesMax: 1 },
    });
    run.note("(c) S5 is down; S1 leads in epoch 4 and brings 2@2 to S3: it is on a majority now");
    run.crash("S5");
    run.tick("S1", 10);
    run.settle(({ message }) => message.kind === "vote_request" || message.kind === "vote_reply");
    run.tick("S1");
    const withS3 = ({ to, from }: { to: string; from: string }): boolean => to === "S3" || from === "S3";
    while (run.nodes.get("S3")?.disk.entries.length !== 2) run.deliver(1, withS3);
    run.deliver(1, ({ from, message }) => from === "S3" && message.kind === "append_accepted");
    run.lose();
    run.logs();
    expect(run.nodes.get("S3")?.disk.entries.map(({ epoch }) => epoch)).toEqual([1, 2]);
    expect(committed(run, "S1")).toBe(0);
    run.note("(d) S1 crashes before its own entry 3@4 gets anywhere; S5 comes back, wins, and overwrites 2@2");
    run.crash("S1");
    run.restart("S5");
    for (const id of ["S2", "S3", "S4"]) run.tick(id, 9);
    run.tick("S5", 10);
    run.settle(({ to }) => to !== "S1");
    run.tick("S5", 10);
    run.settle(({ to }) => to !== "S1");
    run.logs();
    expect(run.nodes.get("S3")?.disk.entries.at(1)?.epoch).toBe(3);
    await expectTrace(run, "figure-8");
  });

  it("a replica that comes back from a partition does not disturb (thesis §9.6, §4.2.3)", async () => {
    const run = transcript({ configuration: voters("A", "B", "C") });
    elect(run, "A");
    run.note("C hears nobody for three election timeouts: its epoch does not rise");
    run.tick("C", 30);
    run.lose();
    expect(run.nodes.get("C")?.engine?.status().epoch).toBe(1);
    run.note("C is back, and asks once more before it hears the leader");
    run.tick("C", 10);
    run.settle();
    run.tick("A");
    run.settle();
    expect(run.nodes.get("A")?.engine?.status().role).toBe("leader");
    expect(run.nodes.get("C")?.engine?.status()).toMatchObject({ role: "follower", leader: "A", epoch: 1 });
    await expectTrace(run, "pre-vote-rejoin");
  });

  it("conflict back-off skips whole epochs (Raft §5.3, end)", async () => {
    const leaderLog = [1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 5, 5, 5, 5];
    const run = transcript({
      configuration: voters("A", "B", "C"),
      logs: { A: leaderLog, B: leaderLog, C: [1, 1, 1, 2, 2, 2, 2, 3, 3, 3, 3, 3, 4, 4, 4, 4, 4, 4] },
    });
    elect(run, "A");
    run.tick("A");
    run.settle();
    run.logs();
    const refusals = run.text().match(/C → A rejected/g) ?? [];
    expect(refusals.length).toBeLessThanOrEqual(2);
    await expectTrace(run, "conflict-back-off");
  });

  it("a read right after an election waits for the first commit of the epoch (thesis §6.4; etcd 7331)", async () => {
    const run = transcript({ configuration: voters("A", "B", "C"), logs: { A: [1, 1], B: [1, 1], C: [1] } });
    run.tick("A", 10);
    run.settle(({ message }) => message.kind === "vote_request" || message.kind === "vote_reply");
    run.note("A leads, nothing of its epoch is committed");
    run.read("A", 1);
    run.tick("A");
    run.note("Heartbeats are answered: leadership alone does not answer the read");
    run.settle(({ message }) => message.kind === "heartbeat" || message.kind === "heartbeat_reply");
    expect(run.text()).not.toContain("read #1 ready");
    run.note("The no-op commits, the read's round follows");
    run.tick("A");
    run.settle();
    expect(run.text()).toContain("read #1 ready at 3");
    await expectTrace(run, "read-after-election");
  });

  it("leadership moves without a timeout, and proposals wait meanwhile (thesis §3.10)", async () => {
    const run = transcript({ configuration: voters("A", "B", "C") });
    elect(run, "A");
    run.propose("A", "x");
    run.lose();
    run.note("B lacks the entry: it is brought up to date first");
    run.transfer("A", "B");
    run.propose("A", "y");
    run.tick("A");
    run.settle();
    expect(run.nodes.get("B")?.engine?.status()).toMatchObject({ role: "leader", epoch: 2 });
    expect(run.nodes.get("A")?.engine?.status()).toMatchObject({ role: "follower", leader: "B" });
    await expectTrace(run, "leader-transfer");
  });

  it("a leader that is replaced leads from outside until the new configuration is committed (thesis §4.2.2, §4.3)", async () => {
    const run = transcript({ configuration: voters("A", "B", "C"), others: ["D"] });
    elect(run, "A");
    run.note("D joins as a learner: it follows a leader that its own configuration does not know");
    run.configure("A", { kind: "add_learner", id: "D" });
    run.settle();
    run.tick("A");
    run.settle();
    run.note("D takes A's vote: until the joint configuration is committed, both majorities decide");
    run.configure("A", { kind: "replace", id: "A", by: "D" });
    run.settle();
    expect(run.nodes.get("A")?.engine?.status()).toMatchObject({ role: "follower" });
    run.note("B was asked to campaign; A keeps quiet");
    run.tick("B");
    run.settle();
    run.tick("A", 40);
    run.settle();
    const status = run.nodes.get("D")?.engine?.status();
    expect(status?.configuration).toEqual(voters("B", "C", "D"));
    expect(status?.leader).not.toBe("A");
    await expectTrace(run, "leader-outside");
  });

  it("a follower behind the log's base gets a snapshot, then entries again (Raft §7)", async () => {
    const run = transcript({ configuration: voters("A", "B", "C") });
    elect(run, "A");
    run.crash("C");
    run.propose("A", "x", "y");
    run.settle(({ to }) => to !== "C");
    run.note("A keeps nothing but its last entry; C comes back with the first only");
    run.compact("A", 2);
    run.restart("C");
    run.tick("A");
    run.settle();
    run.tick("A");
    run.settle();
    run.note("While the snapshot is on its way, C gets heartbeats only");
    run.propose("A", "z");
    run.settle();
    run.ship("A");
    run.settle();
    run.logs();
    expect(committed(run, "C")).toBe(4);
    await expectTrace(run, "snapshot-to-a-lagging-follower");
  });
});
