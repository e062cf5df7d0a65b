/**
 * A group on Multi-Paxos whose route is cut: the tests of group-partition.test.ts again.
 */
process.env["GROUP_ENGINE"] = "paxos";
await import("./group-partition.test.ts");
