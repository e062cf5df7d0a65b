/**
 * What a client may believe of a real group on Multi-Paxos: the tests of group-confirm.test.ts again.
 */
process.env["GROUP_ENGINE"] = "paxos";
await import("./group-confirm.test.ts");
