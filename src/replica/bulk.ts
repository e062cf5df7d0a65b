/**
 * Owns the connection for what is large: opened while somebody needs it, so that snapshots never stand in the way of votes
 * and appends, and closed when nobody does.
 */
import { ShardpactError } from "../model/errors.ts";
import type { Refusal, Transport } from "../transport/port.ts";
import type { Runtime } from "./runtime.ts";

const IDLE_MS = 5_000;

export interface BulkConnection {
  /** Everybody shares one. Each `acquire` that resolves needs one `release`. @throws `unavailable`, `closed` */
  acquire(): Promise<Transport>;
  release(): void;
  close(): Promise<void>;
}

export interface BulkOptions {
  connect(): Promise<Transport>;
  readonly runtime: Runtime;
  /** The server does not let the connection use a subject. */
  onRefused(refusal: Refusal): void;
}

export function createBulkConnection({ connect, runtime, onRefused }: BulkOptions): BulkConnection {
  let opening: Promise<Transport> | null = null;
  let users = 0;
  let closed = false;
  let cancelIdle = (): void => undefined;

  async function open(): Promise<Transport> {
    const transport = await connect();
    transport.onStatus((_connected, refused) => refused && onRefused(refused));
    return transport;
  }

  async function end(): Promise<void> {
    const old = opening;
    opening = null;
    await old?.then((transport) => transport.close()).catch(() => undefined);
  }

  return {
    async acquire() {
      if (closed) throw new ShardpactError("closed", "this replica is closed");
      cancelIdle();
      users += 1;
      opening ??= open();
      const mine = opening;
      try {
        return await mine;
      } catch (error) {
        users -= 1;
        if (opening === mine) opening = null;
        throw error;
      }
    },
    release() {
      users -= 1;
      if (users > 0 || closed) return;
      cancelIdle = runtime.after(IDLE_MS, () => void end());
    },
    async close() {
      closed = true;
      cancelIdle();
      await end();
    },
  };
}
