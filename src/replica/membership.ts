/**
 * Owns the membership in one session: the configurations that are applied, what operators ask, and how both are told.
 */
import type { EngineStatus, LogIndex } from "../consensus/engine.ts";
import type { ConfigurationStatus } from "../model/api.ts";
import { type GroupConfiguration, type MemberRole, roleIn } from "../model/group.ts";
import type { LogState } from "../storage/port.ts";
import { type Admin, createAdmin } from "./admin.ts";
import type { ApplyLoop } from "./apply-loop.ts";
import {
  type AppliedConfigurations,
  createAppliedConfigurations,
  groupOf,
  type PlacedConfiguration,
} from "./configurations.ts";
import type { SessionContext } from "./context.ts";
import type { Driver } from "./driver.ts";
import type { Proposals } from "./proposals.ts";
import { createSignatures, type Signatures } from "./signatures.ts";

export interface Membership {
  readonly admin: Admin;
  readonly signatures: Signatures;
  /** The configuration as of an index that is applied. */
  at(index: LogIndex): PlacedConfiguration;
  /** The newest: in force and perhaps not committed (Raft), or chosen and perhaps not in force yet (Multi-Paxos). */
  status(engine: EngineStatus): { readonly member: MemberRole; readonly configuration: ConfigurationStatus };
  /** A `config` entry was applied. */
  applied(index: LogIndex, payload: Uint8Array): void;
  stop(): void;
}

export function createMembership<M>(
  context: SessionContext<M>,
  start: LogState,
  driver: Driver<M>,
  late: () => { readonly apply: ApplyLoop; readonly proposals: Proposals },
): Membership {
  const { config, identity, runtime, transport, stores } = context;
  const applied: AppliedConfigurations = createAppliedConfigurations(
    identity.genesisBytes,
    start.configurations,
    start.applied.index,
  );
  const { tickMs, electionTicksMax } = config.timing;
  const admin = createAdmin({
    replica: config.replica,
    groupId: identity.groupId,
    runtime,
    applied,
    apply: { waitFor: (index, waitMs) => late().apply.waitFor(index, waitMs) },
    transferMs: 2 * tickMs * electionTicksMax,
    feed: (event) => driver.feed(event),
    newest: () => newestOf(driver.status(), applied),
    status: () => driver.status(),
    over: () => driver.over(),
  });
  const signatures = createSignatures({
    config,
    identity,
    runtime,
    transport,
    catalog: stores.catalog,
    configurations: applied,
    leader: () => driver.status().leader,
    submit: (encoded, reply) => late().proposals.submit(encoded, reply),
  });
  return {
    admin,
    signatures,
    at: (index) => applied.at(index),
    status(engine) {
      const newest = newestOf(engine, applied);
      const { number, digest, voters, votersOutgoing, learners } = newest;
      const shown = {
        number,
        digest,
        voters: [...voters],
        votersOutgoing: [...votersOutgoing],
        learners: [...learners],
      };
      const settled = applied.newest().digest === digest && groupOf(engine.configuration).digest === digest;
      return { member: roleIn(newest, config.replica), configuration: { ...shown, applied: settled } };
    },
    applied(index, payload) {
      applied.put(index, payload);
      signatures.applied(applied.newest());
    },
    stop() {
      admin.close();
      signatures.stop();
    },
  };
}

function newestOf({ configuration }: EngineStatus, applied: AppliedConfigurations): GroupConfiguration {
  const inForce = groupOf(configuration);
  return applied.newest().number > inForce.number ? applied.newest() : inForce;
}
