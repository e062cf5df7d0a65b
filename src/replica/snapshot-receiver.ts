/**
 * Owns the follower's half of a snapshot on its way: asks the leader for what it lacks, a few pieces at a time, collects
 * them in a file, and has the whole file installed.
 *
 *   offer ──► receiving ⇄ (lost pieces are asked for again) ──► installing ──► installed
 *                └── no piece for long: the connection is given back, the file stays for the next offer of the same digest
 *
 * It outlives sessions: while one is replaced by an install, the leader still hears that it goes on. What is believed of
 * an offer is only where to ask: the file is checked as a whole before anything of it is used.
 */
import type { LogIndex, ReplicaId } from "../consensus/engine.ts";
import { encodeApi, SUBJECTS } from "../model/api.ts";
import { type ShardpactError, toShardpactError } from "../model/errors.ts";
import type { FoundSnapshots, SnapshotFolder, SnapshotSink } from "../storage/port.ts";
import type { Transport } from "../transport/port.ts";
import type { BulkConnection } from "./bulk.ts";
import type { Runtime } from "./runtime.ts";
import { type SnapshotAnswer, type SnapshotOffer, decodeSnapshotMessage } from "./snapshot-messages.ts";
import { type Pull, startPull } from "./snapshot-pull.ts";

const NAME = /^received-/;
/** A file that grows no more is kept so long for another offer of the same snapshot. */
const KEPT_MS = 600_000;

export type ReceiveStep = "receiving" | "installing" | "installed" | "receive_failed";

export interface SnapshotToInstall {
  readonly path: string;
  readonly offer: SnapshotOffer;
}

export interface SnapshotReceiver {
  close(): Promise<void>;
}

export interface ReceiverOptions {
  readonly group: string;
  readonly groupId: string;
  readonly replica: ReplicaId;
  readonly transport: Transport;
  readonly bulk: BulkConnection;
  readonly folder: SnapshotFolder;
  readonly runtime: Runtime;
  /** What the folder held when it was opened. */
  readonly found: FoundSnapshots;
  /** Null while no session runs. */
  session(): { readonly applied: LogIndex; readonly leader: ReplicaId | null } | null;
  /** Ends the session, installs, starts another one. Null: what is applied is at or above the snapshot now. */
  install(snapshot: SnapshotToInstall): Promise<ShardpactError | null>;
  onStep(step: ReceiveStep, from: ReplicaId, index: LogIndex, reason: string | null): void;
}

/** The snapshot that is being received, or is here and not installed yet. */
interface Incoming {
  readonly offer: SnapshotOffer;
  readonly name: string;
  from: ReplicaId;
  /** Null once the file is whole. */
  sink: SnapshotSink | null;
  /** Up to here the bytes are an earlier process's. */
  readonly resumedAt: number;
  pull: Pull | null;
  installing: boolean;
  cancelKept: () => void;
}

export function createSnapshotReceiver(options: ReceiverOptions): SnapshotReceiver {
  const { group, groupId, replica, transport, bulk, folder, runtime } = options;
  const named = (names: readonly string[]): readonly string[] => names.filter((name) => NAME.test(name));
  /** Of an earlier process: one of them may be what is offered next. */
  let found: FoundSnapshots = { whole: named(options.found.whole), begun: named(options.found.begun) };
  let incoming: Incoming | null = null;
  /** Offers are taken one at a time: each may open and close files. */
  let turn: Promise<void> = Promise.resolve();
  let waiting = 0;
  let closed = false;

  function answer(
    to: ReplicaId,
    { digest, bytes }: SnapshotOffer,
    state: SnapshotAnswer["state"],
    error?: ShardpactError,
  ): void {
    if (closed) return;
    const offset = incoming?.offer.digest === digest ? (incoming.sink?.offset ?? bytes) : 0;
    const why = { code: error?.code ?? null, reason: error?.message ?? null };
    const said: SnapshotAnswer = { kind: "answer", groupId, digest, state, offset, ...why };
    transport.publish(SUBJECTS.snapshot(group, to, replica), encodeApi(said));
  }

  async function offered(from: ReplicaId, offer: SnapshotOffer): Promise<void> {
    if (closed) return;
    if (incoming?.installing) return answer(from, offer, "installing");
    const session = options.session();
    if (session === null) return;
    if (session.applied >= offer.index) {
      await forget();
      return answer(from, offer, "installed");
    }
    // A leader of the past stops by itself; two that take turns would get nowhere.
    if (session.leader !== from) return;
    try {
      if (incoming?.offer.digest !== offer.digest) await begin(from, offer);
      await goOn(from);
    } catch (error) {
      await failed(toShardpactError(error));
    }
  }

  async function begin(from: ReplicaId, offer: SnapshotOffer): Promise<void> {
    await forget();
    const name = `received-${offer.digest.slice(3, 19)}`;
    const isWhole = found.whole.includes(name);
    for (const other of [...found.whole, ...found.begun]) if (other !== name) await folder.remove(other);
    found = { whole: [], begun: [] };
    const { digest, bytes } = offer;
    const sink = isWhole ? null : await folder.sink(name, { digest, bytes });
    const resumedAt = sink?.offset ?? 0;
    incoming = {
      ...{ offer, name, from, sink, resumedAt, pull: null, installing: false },
      cancelKept: () => undefined,
    };
    const reason = resumedAt > 0 ? `goes on at byte ${resumedAt} of ${bytes}` : null;
    options.onStep("receiving", from, offer.index, reason);
  }

  /** From wherever it stands. */
  async function goOn(from: ReplicaId): Promise<void> {
    const mine = incoming;
    if (!mine) return;
    mine.cancelKept();
    mine.cancelKept = runtime.after(
      KEPT_MS,
      () => void inTurn(() => (incoming === mine ? forget() : Promise.resolve())),
    );
    if (mine.sink === null) return install(mine);
    if (mine.from !== from) {
      await mine.pull?.stop();
      mine.pull = null;
      mine.from = from;
    }
    mine.pull ??= startPull({
      ...{ offer: mine.offer, sink: mine.sink, bulk, runtime },
      wantSubject: SUBJECTS.bulk(group, from, replica),
      chunkSubject: SUBJECTS.bulk(group, replica, from),
      onEnd: (error) => void inTurn(() => pulled(mine, error)),
    });
    answer(from, mine.offer, "receiving");
  }

  async function pulled(mine: Incoming, error: ShardpactError | null): Promise<void> {
    mine.pull = null;
    if (incoming !== mine || !mine.sink || closed) return;
    // No connection, or nobody answers: the next offer goes on from here.
    if (error?.code === "unavailable" || error?.code === "timeout") return;
    try {
      if (error) throw error;
      await mine.sink.finish();
      mine.sink = null;
    } catch (failure) {
      // What an earlier process left was not what it had received (a power cut): nothing that the sender could mend.
      if (mine.resumedAt > 0) return forget();
      return failed(toShardpactError(failure));
    }
    await install(mine);
  }

  /** Not in the turn of offers: they are answered while it lasts. */
  async function install(mine: Incoming): Promise<void> {
    if (mine.installing) return;
    mine.installing = true;
    mine.cancelKept();
    const { offer, name, from } = mine;
    answer(from, offer, "installing");
    options.onStep("installing", from, offer.index, null);
    void options.install({ path: folder.pathOf(name), offer }).then((error) => inTurn(() => installed(mine, error)));
  }

  async function installed(mine: Incoming, error: ShardpactError | null): Promise<void> {
    mine.installing = false;
    if (error === null) {
      answer(mine.from, mine.offer, "installed");
      options.onStep("installed", mine.from, mine.offer.index, null);
      await forget();
    } else if (error.code !== "unavailable" && error.code !== "aborted") await failed(error);
    // Else the file is whole and stays: the next offer tries again.
  }

  async function failed(error: ShardpactError): Promise<void> {
    const mine = incoming;
    if (!mine) return;
    answer(mine.from, mine.offer, "failed", error);
    options.onStep("receive_failed", mine.from, mine.offer.index, error.message);
    await forget();
  }

  async function forget(): Promise<void> {
    const mine = incoming;
    incoming = null;
    if (!mine) return;
    mine.cancelKept();
    await mine.pull?.stop();
    await mine.sink?.close().catch(() => undefined);
    await folder.remove(mine.name).catch(() => undefined);
  }

  function inTurn(work: () => Promise<void>): Promise<void> {
    turn = turn.then(work, work);
    return turn;
  }

  const offers = transport.subscribe(SUBJECTS.snapshot(group, replica, "*"), ({ subject, data }) => {
    const from = subject.slice(subject.lastIndexOf(".") + 1);
    const message = decodeSnapshotMessage(data);
    // One that waits is enough: offers come again.
    if (message?.kind !== "offer" || message.groupId !== groupId || waiting > 0) return;
    waiting += 1;
    void inTurn(async () => {
      waiting -= 1;
      await offered(from, message);
    });
  });

  return {
    async close() {
      closed = true;
      offers.close();
      await inTurn(async () => {
        const mine = incoming;
        incoming = null;
        mine?.cancelKept();
        await mine?.pull?.stop();
        await mine?.sink?.close().catch(() => undefined);
      });
    },
  };
}
