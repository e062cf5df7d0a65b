/**
 * Every test of a group again, on Multi-Paxos: the shell and the stores must not know which engine runs.
 */
process.env["GROUP_ENGINE"] = "paxos";
await import("./group.test.ts");
