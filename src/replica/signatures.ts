/**
 * Owns a voter's signatures under the configurations that followed its own, until the ledger holds them.
 *
 * They go through the log like any command, so every replica and every snapshot has them, and a client that was away for
 * long can be shown how the group came to its members (`merkle/certificate.ts`). Whoever is out of the group signs too:
 * its word may be the one that a majority lacks.
 */
import type { Command } from "../model/commands.ts";
import { encodeCommand, parseCommand } from "../model/commands.ts";
import { decodeApi, discoverReply, proposeReply, SUBJECTS, type ProposeReply } from "../model/api.ts";
import { toHex, utf8 } from "../model/bytes.ts";
import { ShardpactError } from "../model/errors.ts";
import { type MemberInfo, votersOf } from "../model/group.ts";
import { canonicalJson } from "../model/json.ts";
import { sign } from "../model/keys.ts";
import { LIMITS } from "../model/limits.ts";
import { isReplicaId } from "../model/names.ts";
import { hashHexAs } from "../merkle/hash.ts";
import { isSignedBy, statementDigest } from "../merkle/certificate.ts";
import type { CatalogStore } from "../storage/port.ts";
import type { Message, Subscription, Transport } from "../transport/port.ts";
import type { AppliedConfigurations, PlacedConfiguration } from "./configurations.ts";
import type { GroupIdentity, ReplicaConfig } from "./config.ts";
import type { Runtime } from "./runtime.ts";

export interface Signatures {
  /** A configuration was applied. */
  applied(configuration: PlacedConfiguration): void;
  /** The door for such commands. @throws ShardpactError `unauthorized` unless it is a true signature, `unavailable` */
  admit(command: Command): void;
  stop(): void;
}

export interface SignaturesOptions {
  readonly config: ReplicaConfig;
  readonly identity: GroupIdentity;
  readonly runtime: Runtime;
  readonly transport: Transport;
  readonly catalog: Pick<CatalogStore, "chainAt" | "outcome">;
  readonly configurations: AppliedConfigurations;
  leader(): string | null;
  submit(encoded: Uint8Array, reply: (answer: ProposeReply) => void): void;
}

const RETRY_MS = 250;
/** At a start: older ones were signed long ago, or never will be. */
const LOOKED_BACK_MAX = 32;
/** Only members answer; more than that are none of ours. */
const HEARD_MAX = LIMITS.votersMax + LIMITS.learnersMax;

export function createSignatures(options: SignaturesOptions): Signatures {
  const { config, identity, runtime, transport, catalog, configurations } = options;
  const { groupId, key } = identity;
  const open: PlacedConfiguration[] = [];
  let cancelRetry = (): void => undefined;
  let busy = false;
  let stopped = false;
  let asked = 0;
  let answers: Subscription | null = null;
  const heard = new Set<string>();

  const isSelf = ({ id, publicKey }: MemberInfo): boolean => id === config.replica && publicKey === key.publicKeyHex;

  /** Those that this replica voted before. */
  function isOurs(configuration: PlacedConfiguration): boolean {
    const before = predecessor(configuration);
    return before !== null && votersOf(before).some(isSelf);
  }

  function predecessor({ previous }: PlacedConfiguration): PlacedConfiguration | null {
    return configurations.all().find((each) => each.digest === previous) ?? null;
  }

  async function commandFor({ index, digest }: PlacedConfiguration): Promise<Command | null> {
    const chain = await catalog.chainAt(index);
    if (chain === null) return null;
    const statement = { groupId, index, chain, configuration: digest };
    const signature = toHex(sign(key, statementDigest(statement)));
    const body = { index, chain, configuration: digest, replica: config.replica, signature };
    // The signature is in the id: nobody else can take it before it is there.
    const id = hashHexAs("commandId", utf8(canonicalJson(["configuration.sign", body])));
    return parseCommand({ id, actor: config.replica, kind: "configuration.sign", body });
  }

  async function work(): Promise<void> {
    for (let next = open[0]; next && !stopped; next = open[0]) {
      const command = await commandFor(next);
      if (command === null) return;
      if ((await catalog.outcome(command.id)) === null && !(await propose(encodeCommand(command)))) return;
      open.shift();
    }
  }

  /** True once it is applied, or refused for good. */
  async function propose(encoded: Uint8Array): Promise<boolean> {
    const leader = options.leader();
    if (leader === config.replica) {
      return isOver(await new Promise<ProposeReply>((resolve) => options.submit(encoded, resolve)));
    }
    const target = leader ?? whoMayKnow();
    const subject = SUBJECTS.api(config.genesis.name, target, "propose");
    const reply = await transport.request(subject, encoded, { timeoutMs: LIMITS.requestTimeoutMs });
    return isOver(decodeApi(proposeReply, reply));
  }

  /**
   * Whoever is out hears of no later configuration, and those that it knows may have gone since: it asks who is a member
   * now, too. Answers are hints: a signature proves itself to whoever gets it.
   */
  function whoMayKnow(): string {
    answers ??= transport.subscribe(transport.inbox(), hear);
    transport.publish(SUBJECTS.discover, new Uint8Array(0), answers.subject);
    const newest = configurations.newest();
    const members = new Set([...[...votersOf(newest), ...newest.learners].map(({ id }) => id), ...heard]);
    asked += 1;
    return [...members][asked % members.size] ?? "";
  }

  function hear({ data }: Message): void {
    try {
      const reply = decodeApi(discoverReply, data);
      if (reply.groupId === groupId && isReplicaId(reply.replica) && heard.size < HEARD_MAX) heard.add(reply.replica);
    } catch {
      // no answer of a replica
    }
  }

  function poke(): void {
    if (busy || stopped || open.length === 0) return;
    busy = true;
    void work()
      .catch(() => undefined) // nobody leads, or the store went away: again
      .finally(() => {
        busy = false;
        cancelRetry();
        if (open.length > 0 && !stopped) cancelRetry = runtime.after(RETRY_MS, poke);
      });
  }

  open.push(...configurations.all().slice(-LOOKED_BACK_MAX).filter(isOurs));
  if (open.length > 0) cancelRetry = runtime.after(RETRY_MS, poke);

  return {
    applied(configuration) {
      if (!isOurs(configuration)) return;
      open.push(configuration);
      // What is told of it (its chain) is applied by the end of this turn.
      cancelRetry();
      cancelRetry = runtime.after(0, poke);
    },
    admit(command) {
      if (command.kind !== "configuration.sign") return;
      const { index, chain, configuration, replica, signature } = command.body;
      const placed = configurations.all().find((each) => each.index === index && each.digest === configuration);
      const before = placed && predecessor(placed);
      if (!before) {
        throw new ShardpactError(
          "unavailable",
          `configuration ${configuration} of index ${index} is not known here yet`,
        );
      }
      if (isSignedBy(before, { groupId, index, chain, configuration }, { replica, signature })) return;
      throw new ShardpactError("unauthorized", `this is no signature of the voter '${replica}'`);
    },
    stop() {
      stopped = true;
      cancelRetry();
      answers?.close();
    },
  };
}

function isOver(reply: ProposeReply): boolean {
  return reply.ok || reply.index !== null || reply.error.code === "unauthorized";
}
