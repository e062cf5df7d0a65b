/**
 * What a real group on Multi-Paxos keeps when it loses parts: the tests of group-faults.test.ts again.
 */
process.env["GROUP_ENGINE"] = "paxos";
await import("./group-faults.test.ts");
