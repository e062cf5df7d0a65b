/**
 * Backup, restore and recover of a group on Multi-Paxos: the tests of recover.test.ts again.
 */
process.env["GROUP_ENGINE"] = "paxos";
await import("./recover.test.ts");
