/**
 * Runs that follow their dataset on a real group on Multi-Paxos: the tests of follow.test.ts again.
 */
process.env["GROUP_ENGINE"] = "paxos";
await import("./follow.test.ts");
