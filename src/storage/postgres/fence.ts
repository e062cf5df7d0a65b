/**
 * Owns the check that a read was made while this process still held the replica's place: its boot was the newest.
 *
 * Reads run on any connection of the pool, so nothing else ends them when another process has taken over. The statements
 * of every open bring the newest boot with them. For all else there is a check beside the read: one is under way at a time,
 * and reads that arrive meanwhile share the next, so it costs little under load and no time without.
 */
import { ShardpactError } from "../../model/errors.ts";
import { fencedError } from "../log-record.ts";
import type { PostgresSession } from "./session.ts";

/** Is told the newest boot, as a statement has read it. */
export type Witness = (newestBoot: number) => void;

export interface Fence {
  /**
   * Runs a read and checks beside it, or after it when `carries` says that the read brings the boot, and it did not.
   * @throws `fenced`, `unavailable` (not booted, or booted again meanwhile)
   */
  held<T>(read: (witness: Witness) => Promise<T>, carries: boolean): Promise<T>;
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
    async held(read, carries) {
      const { boot, identity } = session;
      if (boot === 0) throw session.lost ?? notItsOwn(identity.replica);
      let carried: number | null = null;
      const reading = read((newest) => {
        carried = newest;
      });
      const [answer, beside] = await Promise.all([reading, carries ? null : newestBoot()]);
      const newest = beside ?? carried ?? (await newestBoot());
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
