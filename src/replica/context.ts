/**
 * Owns what every session of one replica shares: who it is, and its ports.
 */
import type { EngineKind } from "../consensus/engine.ts";
import type { ReplicaStores } from "../storage/port.ts";
import type { Transport } from "../transport/port.ts";
import type { BulkConnection } from "./bulk.ts";
import type { GroupIdentity, ReplicaConfig } from "./config.ts";
import type { Runtime } from "./runtime.ts";
import type { SnapshotSpool } from "./snapshot-spool.ts";

export interface SessionContext<M> {
  readonly config: ReplicaConfig;
  readonly identity: GroupIdentity;
  readonly transport: Transport;
  readonly stores: ReplicaStores;
  readonly engine: EngineKind<M>;
  readonly runtime: Runtime;
  readonly bulk: BulkConnection;
  readonly spool: SnapshotSpool;
}
