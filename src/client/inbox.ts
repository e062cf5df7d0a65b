/**
 * Owns where voters' answers come in: one subscription for a whole session, one subject a question.
 *
 * Not one subscription a question: in a cluster of nats-servers a new one has to travel to every server, and the answer
 * of a voter on a third server could be there before it.
 */
import type { Subscription, Transport } from "../transport/port.ts";

export interface Inbox {
  /** Listens on a subject of its own until `close`. */
  open(handler: (data: Uint8Array) => void): Subscription;
}

/** Subscribes at the first `open`; the subscription ends with the transport. */
export function createInbox(transport: Transport): Inbox {
  const prefix = transport.inbox();
  const handlers = new Map<string, (data: Uint8Array) => void>();
  let subscription: Subscription | null = null;
  let count = 0;
  return {
    open(handler) {
      subscription ??= transport.subscribe(`${prefix}.*`, ({ subject, data }) => handlers.get(subject)?.(data));
      count += 1;
      const subject = `${prefix}.${count.toString(36)}`;
      handlers.set(subject, handler);
      return { subject, close: () => void handlers.delete(subject) };
    },
  };
}
