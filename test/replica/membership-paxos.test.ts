/** The same membership, requests and proofs on Multi-Paxos. */
process.env["GROUP_ENGINE"] = "paxos";
await import("./membership.test.ts");
