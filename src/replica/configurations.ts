/**
 * Owns how the shell reads and writes configurations for the engine, and which one holds as of a log index.
 *
 * The engine knows ids; the objects that it is given carry the whole configuration beside them, and come back in its
 * status. Whatever clients are told is as of an index that is applied: what the engine's log holds above that may go.
 */
import type { Configuration, LogIndex } from "../consensus/engine.ts";
import { utf8 } from "../model/bytes.ts";
import { invariant, ShardpactError } from "../model/errors.ts";
import {
  changeRecord,
  type ChangeRecord,
  type ConfigurationPayload,
  type GroupConfiguration,
  type MemberInfo,
  votersOf,
} from "../model/group.ts";
import { canonicalJson } from "../model/json.ts";
import { LIMITS } from "../model/limits.ts";
import { configurationBytes, readConfiguration } from "../merkle/configuration.ts";

/** What the engine is given: its ids, and what they stand for. */
interface EngineConfiguration extends Configuration {
  readonly group: GroupConfiguration;
}

/** A configuration and the index of its entry. */
export interface PlacedConfiguration extends GroupConfiguration {
  readonly index: LogIndex;
}

/** @throws ShardpactError `invalid_argument` when the payload is no configuration */
export function decodeConfiguration(payload: Uint8Array): Configuration {
  const group = readConfiguration(payload);
  const configuration: EngineConfiguration = {
    voters: idsOf(group.voters),
    votersOutgoing: idsOf(group.votersOutgoing),
    learners: idsOf(group.learners),
    ...(group.ordinals === undefined ? {} : { ordinals: group.ordinals }),
    group,
  };
  return configuration;
}

/** What stands behind a configuration of the engine. */
export function groupOf(configuration: Configuration): GroupConfiguration {
  invariant("group" in configuration, "the engine gives back the configurations that it was given");
  return (configuration as EngineConfiguration).group;
}

/** What `configure` carries to `encodeConfiguration`. */
export function encodeChange(record: ChangeRecord): Uint8Array {
  return utf8(canonicalJson(record));
}

/** The engine's `encodeConfiguration`. @throws ShardpactError when a bound is reached or the change cannot be read */
export function createConfigurationEncoder(
  groupId: ConfigurationPayload["groupId"],
): (next: Configuration, before: Configuration, change: Uint8Array) => Uint8Array {
  return (next, before, change) => {
    const from = groupOf(before);
    const request = change.byteLength === 0 ? null : changeRecord.parse(JSON.parse(new TextDecoder().decode(change)));
    const members = [...votersOf(from), ...from.learners];
    if (request?.change.kind === "add_learner") members.push(request.change.member);
    const known = new Map(members.map((member) => [member.id, member]));
    const infos = (ids: readonly string[]): MemberInfo[] =>
      ids.map((id) => {
        const found = known.get(id);
        if (!found) throw new ShardpactError("invalid_argument", `no configuration names the key of '${id}'`);
        return { id, publicKey: found.publicKey };
      });
    if (next.voters.length > LIMITS.votersMax || next.learners.length > LIMITS.learnersMax)
      throw new ShardpactError("limit_exceeded", "a group has at most 7 voters and 7 learners");
    return configurationBytes({
      format: "shardpact-configuration/1",
      groupId,
      number: from.number + 1,
      previous: from.digest,
      voters: infos(next.voters),
      votersOutgoing: infos(next.votersOutgoing),
      learners: infos(next.learners),
      ...(next.ordinals === undefined ? {} : { ordinals: { of: { ...next.ordinals.of }, last: next.ordinals.last } }),
      request,
    });
  };
}

/** The configurations that are applied here: final, one after the other. */
export interface AppliedConfigurations {
  /** The newest at or below `index`; the group's first one before any. */
  at(index: LogIndex): PlacedConfiguration;
  newest(): PlacedConfiguration;
  /** The entry at `index` is applied. */
  put(index: LogIndex, payload: Uint8Array): void;
  /** In the order of the log, from this group's first entry on. */
  all(): readonly PlacedConfiguration[];
}

/** `logged`: what the store holds; what lies above `applied` is not believed yet. */
export function createAppliedConfigurations(
  genesisBytes: Uint8Array,
  logged: readonly { readonly index: LogIndex; readonly payload: Uint8Array }[],
  applied: LogIndex,
): AppliedConfigurations {
  let list: PlacedConfiguration[] = [{ ...readConfiguration(genesisBytes), index: 0 }];
  const [first] = list;
  invariant(first, "a replica knows its group's first configuration");

  function put(index: LogIndex, payload: Uint8Array): void {
    const read = { ...readConfiguration(payload), index };
    // A recovered group's ledger begins with its parent's configurations: they are history, not this group's.
    if (read.number === 0)
      list = read.digest === first?.digest ? [read] : [{ ...first, index: 0 } as PlacedConfiguration];
    else list.push(read);
  }

  for (const { index, payload } of logged) if (index <= applied) put(index, payload);
  const newest = (): PlacedConfiguration => list.at(-1) ?? first;
  return {
    at: (index) => list.findLast((each) => each.index <= index) ?? first,
    newest,
    put,
    all: () => list,
  };
}

function idsOf(members: readonly MemberInfo[]): string[] {
  return members.map((member) => member.id);
}
