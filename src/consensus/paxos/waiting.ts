/**
 * Owns what waits for the pipeline of a leader: proposals beyond α slots, or behind a change of the membership, and the
 * change itself. They wait in the leader's memory only, so that clients need not ask again; they are lost with the lead.
 */
import type { RejectReason } from "../engine.ts";
import type { Leading, Paxos } from "./state.ts";

/** Whatever waits is not taken: this leader does not go on. */
export function rejectWaiting(paxos: Paxos, leadership: Leading, reason: RejectReason): void {
  const { change } = leadership;
  const tickets = [...(change === null ? [] : [change.ticket]), ...leadership.held.map(({ ticket }) => ticket)];
  for (const ticket of tickets) paxos.out.push({ kind: "rejected", ticket, reason, leader: paxos.leader });
  leadership.change = null;
  leadership.held = [];
}
