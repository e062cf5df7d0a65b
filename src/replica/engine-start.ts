/**
 * Owns how an engine is made from what the store holds. It starts without a vote: the greeting comes first.
 */
import type { Engine } from "../consensus/engine.ts";
import { LIMITS } from "../model/limits.ts";
import type { LogState } from "../storage/port.ts";
import { createConfigurationEncoder, decodeConfiguration } from "./configurations.ts";
import type { SessionContext } from "./context.ts";

export function createEngine<M>(context: SessionContext<M>, start: LogState): Engine<M> {
  const { config, identity, engine, runtime } = context;
  const { heartbeatTicks, electionTicksMin, electionTicksMax } = config.timing;
  const first = { index: 0, configuration: decodeConfiguration(identity.genesisBytes) };
  const logged = start.configurations.map(({ index, payload }) => ({
    index,
    configuration: decodeConfiguration(payload),
  }));
  return engine.create(
    {
      id: config.replica,
      hardState: start.hardState,
      lastIndex: start.lastIndex,
      epochRuns: start.epochRuns,
      base: start.base,
      applied: { index: start.applied.index, chain: start.applied.chain },
      configurations: [first, ...logged],
      genesis: identity.genesisBytes,
      voting: false,
    },
    {
      heartbeatTicks,
      electionTicksMin,
      electionTicksMax,
      appendEntriesMax: LIMITS.appendEntriesMax,
      appendBytesMax: LIMITS.appendBytesMax,
      inflightAppendsMax: LIMITS.inflightAppendsMax,
      proposalsInFlightMax: LIMITS.proposalsInFlightMax,
      logCacheBytesMax: LIMITS.logCacheBytesMax,
      randomU32: () => runtime.randomU32(),
      decodeConfiguration,
      encodeConfiguration: createConfigurationEncoder(identity.groupId),
    },
  );
}
