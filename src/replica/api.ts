/**
 * Owns the door for clients: `shardpact.discover` and one subscription for all verbs of this replica.
 *
 * Requests are bounded in number; what is too much is refused at once, so that a client can go elsewhere.
 */
import {
  API_VERBS,
  type ApiVerb,
  type DiscoverReply,
  type ProposeReply,
  SUBJECTS,
  decodeApi,
  encodeApi,
  readRequest,
} from "../model/api.ts";
import { ShardpactError, toShardpactError } from "../model/errors.ts";
import { LIMITS } from "../model/limits.ts";
import type { Message, Transport } from "../transport/port.ts";
import { type ConfirmContext, followConfirm, leadConfirm } from "./confirm.ts";
import { answerRead } from "./reads.ts";
import type { Session } from "./session.ts";
import type { Shell } from "./shell.ts";

export interface Api {
  /** A confirmation that the leader forwarded to this voter. */
  confirm(body: Uint8Array): void;
  close(): void;
}

export interface ApiOptions extends ConfirmContext {
  readonly shell: Shell;
}

export function serveApi(options: ApiOptions): Api {
  const { config, identity, shell, transport, catalog } = options;
  const group = config.genesis.name;
  let inFlight = 0;

  function discover(message: Message): void {
    const { configuration, member } = shell.status();
    // Whoever left the group, or is still to come, is no way into it.
    if (configuration !== null && member === "none") return;
    const hint = configuration && { number: configuration.number, voters: configuration.voters.length };
    const reply: DiscoverReply = {
      group,
      groupId: identity.groupId,
      replica: config.replica,
      leader: leader(shell),
      genesis: config.genesis,
      stores: config.stores,
      ...(hint === null ? {} : { configuration: hint }),
    };
    answer(transport, message, reply);
  }

  function refuse(message: Message, error: unknown): void {
    answer(transport, message, {
      ok: false,
      error: forClient(error).toJSON(),
      leader: leader(shell),
      index: null,
    });
  }

  function propose(message: Message, session: Session): void {
    inFlight += 1;
    session.proposals.submit(message.data, (reply: ProposeReply) => {
      inFlight -= 1;
      answer(transport, message, reply);
    });
  }

  async function guarded(message: Message | null, session: Session, work: () => Promise<void>): Promise<void> {
    inFlight += 1;
    try {
      await work();
    } catch (error) {
      session.readFailed(error);
      if (message) refuse(message, error);
    } finally {
      inFlight -= 1;
    }
  }

  const verbs: Record<Exclude<ApiVerb, "status">, (message: Message, session: Session) => void> = {
    propose,
    confirm: (message, session) => void guarded(message, session, () => leadConfirm(options, session, message.data)),
    read: (message, session) =>
      void guarded(message, session, async () => {
        const request = decodeApi(readRequest, message.data);
        answer(transport, message, await answerRead(session, catalog, request));
      }),
    admin: (message, session) =>
      void guarded(message, session, async () =>
        answer(transport, message, await session.membership.admin.handle(message.data)),
      ),
  };

  function receive(message: Message): void {
    const verb = API_VERBS.find((name) => message.subject.endsWith(`.${name}`));
    if (verb === undefined) return;
    if (verb === "status") return answer(transport, message, shell.status());
    const session = shell.session();
    if (!session) {
      const { state, reason } = shell.status();
      return refuse(
        message,
        new ShardpactError("unavailable", `${config.replica} is ${state}${reason === null ? "" : `: ${reason}`}`, {
          hint: "Ask another replica: `shardpact status` shows which run.",
        }),
      );
    }
    if (inFlight >= LIMITS.apiInFlightMax) {
      return refuse(
        message,
        new ShardpactError("unavailable", `${config.replica} works on ${inFlight} requests already`),
      );
    }
    verbs[verb](message, session);
  }

  const subscriptions = [
    transport.subscribe(SUBJECTS.discover, discover),
    transport.subscribe(`shardpact.${group}.api.${config.replica}.*`, receive),
  ];
  return {
    confirm(body) {
      const session = shell.session();
      if (session && inFlight < LIMITS.apiInFlightMax)
        void guarded(null, session, () => followConfirm(options, session, body));
    },
    close() {
      for (const subscription of subscriptions) subscription.close();
    },
  };
}

/** That this process was fenced is no answer to a client: whoever took over, or a peer, may have one. */
function forClient(error: unknown): ShardpactError {
  const known = toShardpactError(error);
  if (known.code === "damaged") {
    const hint = "Ask another replica; this one takes its tables anew from the group.";
    return new ShardpactError("unavailable", `this replica's tables are damaged: ${known.message}`, {
      hint,
      cause: known,
    });
  }
  if (known.code !== "fenced") return known;
  return new ShardpactError("unavailable", `this replica has ended: ${known.message}`, { cause: known });
}

function leader(shell: Shell): string | null {
  return shell.session()?.engineStatus().leader ?? null;
}

function answer(transport: Transport, { reply }: Message, value: unknown): void {
  if (reply === null) return;
  let bytes = encodeApi(value);
  if (bytes.byteLength > LIMITS.messageBytesMax) {
    const error = new ShardpactError("limit_exceeded", `the answer takes ${bytes.byteLength} bytes`, {
      hint: "Ask for fewer rows.",
    });
    bytes = encodeApi({ ok: false, error: error.toJSON(), leader: null, index: null });
  }
  try {
    transport.publish(reply, bytes);
  } catch {
    // Closed meanwhile: nobody waits any more.
  }
}
