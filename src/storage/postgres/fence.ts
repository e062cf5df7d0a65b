/**
 * Owns the check that a read was made while this process still held the replica's place: its boot was the newest.
 *
 * Reads run on any connection of the pool, so nothing else ends them when another process has taken over. One check is
 * under way at a time; reads that arrive meanwhile share the next, so it costs little under load and no time without.
 */
import { ShardpactError } from "../../model/errors.ts";
import { fencedError } from "../log-record.ts";
import type { PostgresSession } from "./session.ts";

export interface Fence {
  /** Runs a read and checks beside it. @throws `fenced`, `unavailable` (not booted, or booted again meanwhile) */
  held<T>(read: () => Promise<T>): Promise<T>;
}

export function createFence(session: PostgresSession): Fence {
  let last: Promise<unknown> = Promise.resolve();
  let next: Promise<number> | null = null;

  /** The newest boot at some moment after the call. */
  function newestBoot(): Promise<number> {
    next ??= last.then(() => {
      next = null;
      const check = readBoot(session);
      last = check.catch(() => undefined);
      return check;
    });
    return next;
  }

  return {
    async held(read) {
      const { boot, identity } = session;
      if (boot === 0) throw session.lost ?? notItsOwn(identity.replica);
      const [answer, newest] = await Promise.all([read(), newestBoot()]);
      // This process has raised it itself meanwhile, or is about to.
      if (session.boot !== boot) throw notItsOwn(identity.replica);
      if (newest !== boot) throw fencedError(identity, boot);
      return answer;
    },
  };
}

async function readBoot({ pool }: PostgresSession): Promise<number> {
  const found = await pool.query<{ boot: number }>({
    name: "newest_boot",
    text: "SELECT boot FROM shardpact.replica_state",
  });
  return found.rows[0]?.boot ?? 0;
}

function notItsOwn(replica: string): ShardpactError {
  return new ShardpactError("unavailable", `replica ${replica} is booting on its database`, {
    hint: "Ask again in a moment.",
  });
}
