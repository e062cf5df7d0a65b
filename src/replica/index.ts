/**
 * The public door of a replica: the process that agrees. `shardpact node` and tests start replicas through it.
 */
import type { EngineKind } from "../consensus/engine.ts";
import type { ReplicaStatus } from "../model/api.ts";
import { ShardpactError } from "../model/errors.ts";
import type { ReplicaStores } from "../storage/port.ts";
import type { Transport } from "../transport/port.ts";
import { type Api, serveApi } from "./api.ts";
import { type ReplicaConfig, groupIdentity } from "./config.ts";
import { type ReplicaEvent, startShell } from "./shell.ts";
import type { Runtime } from "./runtime.ts";

export {
  type ReplicaConfig,
  type ReplicaConfigInput,
  type ReplicaTiming,
  genesisPayload,
  groupIdOf,
  loadReplicaConfig,
  parseReplicaConfig,
} from "./config.ts";
export { type Runtime, realRuntime } from "./runtime.ts";
export type { ReplicaEvent, ReplicaState } from "./shell.ts";

export interface ReplicaOptions<M> {
  readonly config: ReplicaConfig;
  /** Stays the caller's: closed after the replica, by the caller. */
  readonly transport: Transport;
  /** Stay the caller's too. */
  readonly stores: ReplicaStores;
  readonly engine: EngineKind<M>;
  readonly runtime: Runtime;
  readonly onEvent?: (event: ReplicaEvent) => void;
}

export interface Replica extends AsyncDisposable {
  status(): ReplicaStatus;
  /** Resolves when the replica has ended: with the reason (`fenced`), or null after `close`. */
  readonly ended: Promise<ShardpactError | null>;
  close(): Promise<void>;
}

/**
 * Starts a replica and serves clients until it is closed or fenced. Resolves once its first boot is done, or has begun
 * to be retried because Postgres is not there.
 * @throws ShardpactError `config_invalid`, `fenced`, `damaged`, `upgrade_required`
 */
export async function startReplica<M>(options: ReplicaOptions<M>): Promise<Replica> {
  const { config, transport, stores } = options;
  const identity = groupIdentity(config);
  if (options.engine.name !== config.genesis.engine) {
    throw new ShardpactError(
      "config_invalid",
      `the group runs ${config.genesis.engine}, this process ${options.engine.name}`,
    );
  }
  const onEvent = options.onEvent ?? (() => undefined);
  let api: Api | null = null;
  const shell = await startShell({
    config,
    identity,
    transport,
    stores,
    engine: options.engine,
    runtime: options.runtime,
    onEvent,
    onConfirm: (body) => api?.confirm(body),
  });
  const served = serveApi({ config, identity, transport, catalog: stores.catalog, shell });
  api = served;
  const stopNats = transport.onStatus((connected, refused) => onEvent({ kind: "nats", connected, refused }));
  const leave = (): void => {
    stopNats();
    served.close();
  };
  const close = async (): Promise<void> => {
    leave();
    await shell.close();
  };
  // Fenced: from now on only the process that took over answers under this name.
  void shell.ended.then(leave);
  return { status: shell.status, ended: shell.ended, close, [Symbol.asyncDispose]: close };
}
