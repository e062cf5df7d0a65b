/**
 * Owns the nats-servers of a local group: one, or a cluster of some, each with a route to every other.
 *
 * A route is dialled by one of its two ends, the later server. With something between (tests put proxies there), servers
 * tell nobody of each other, so that a link that is cut has no way around it.
 */
import { join } from "node:path";
import type { Cleanup } from "./cleanup.ts";
import { type EmbeddedNats, startNats } from "./nats.ts";
import type { NatsAccess } from "./nats-config.ts";

/** A connection that one part of the group makes to another: `r1` to `n2` (a nats-server), `n2` to `n1`, `r1` to `p1` (its Postgres). */
export interface Link {
  readonly from: string;
  readonly to: string;
  readonly port: number;
}

/** Puts something on a link: resolves with the port to dial instead. */
export type Between = (link: Link) => Promise<number>;

export interface NatsPorts {
  readonly client: number;
  readonly route: number;
}

export interface NatsClusterOptions {
  readonly dir: string;
  readonly access: NatsAccess;
  /** One a server. */
  readonly ports: readonly NatsPorts[];
  readonly between: Between | null;
}

/** Starts them all; `cleanup` stops them. @throws ShardpactError `setup_failed` */
export async function startNatsCluster(options: NatsClusterOptions, cleanup: Cleanup): Promise<EmbeddedNats[]> {
  const { dir, access, ports, between } = options;
  const starting = ports.map(async ({ client, route }, i) => {
    const routes = await Promise.all(
      ports.slice(0, i).map(async ({ route: port }, j) => {
        const link = { from: natsName(i), to: natsName(j), port };
        return `nats-route://127.0.0.1:${between === null ? port : await between(link)}`;
      }),
    );
    const server = await startNats({
      dir: ports.length === 1 ? dir : join(dir, natsName(i)),
      access,
      port: client,
      ...(ports.length === 1 ? {} : { cluster: { port: route, routes, announced: between === null } }),
    });
    cleanup.defer(() => server.stop());
    return server;
  });
  // All settle before any failure is passed on: what did start must be known to `cleanup` by then.
  await Promise.allSettled(starting);
  return Promise.all(starting);
}

/** `n1`, `n2`, … */
export function natsName(position: number): string {
  return `n${position + 1}`;
}
