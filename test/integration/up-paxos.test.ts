/**
 * `shardpact up --engine paxos` as a person runs it: the tests of up.test.ts again.
 */
process.env["GROUP_ENGINE"] = "paxos";
await import("./up.test.ts");
