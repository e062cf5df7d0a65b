/**
 * Owns invariant I9: nothing is promised before it is durable. Every message between replicas is compared, as it leaves,
 * with what its sender's disk holds at that moment.
 */
import type { RaftMessage } from "../../src/consensus/raft/index.ts";
import type { MemoryState } from "../../src/storage/memory/disk.ts";
import type { Checker } from "./checker.ts";

export function checkPromise(
  checker: Checker,
  from: string,
  to: string,
  disk: MemoryState | null,
  message: RaftMessage,
): void {
  const check: Checker["check"] = checker.check;
  const { epoch, votedFor } = disk?.hardState ?? { epoch: 0, votedFor: null };
  if (message.kind === "vote_request" && message.pre) return;
  check(message.epoch <= epoch, `I9 ${from} speaks for epoch ${message.epoch}, durable is ${epoch}`);
  if (message.epoch < epoch) return;
  switch (message.kind) {
    case "vote_request":
      return check(votedFor === from, `I9 ${from} campaigns in ${epoch}, its durable vote is ${votedFor}`);
    case "vote_reply":
      if (!message.granted || message.pre) return;
      return check(votedFor === to, `I9 ${from} votes for ${to} in ${epoch}, its durable vote is ${votedFor}`);
    case "append_accepted": {
      const lastIndex = disk?.lastIndex ?? 0;
      return check(message.match <= lastIndex, `I9 ${from} acknowledges ${message.match}, durable are ${lastIndex}`);
    }
    default:
  }
}
