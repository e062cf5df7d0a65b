/**
 * Replicas on Multi-Paxos that are not what they were: the tests of group-identity.test.ts again.
 */
process.env["GROUP_ENGINE"] = "paxos";
await import("./group-identity.test.ts");
