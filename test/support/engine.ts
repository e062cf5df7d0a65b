/**
 * Owns which engine a test of whole groups runs on: Raft, or what GROUP_ENGINE says. A file `*-paxos.test.ts` sets that and
 * runs the tests of another file again.
 */
export const ENGINE = process.env["GROUP_ENGINE"] === "paxos" ? "paxos" : "raft";
