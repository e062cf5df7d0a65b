/**
 * Owns what one worker of a client process does: one operation after another on small datasets, with the real client
 * code, recorded at its call and its return. A call that failed in passing is made again under the same command id.
 *
 * Datasets change every few seconds: a history of one stays short enough to be judged by search.
 */
import { setTimeout as sleep } from "node:timers/promises";
import { commitDraft, putObjects } from "../../src/client/commit.ts";
import { confirmedVersion, resolve } from "../../src/client/open.ts";
import { commandIdOf, makeCommand, propose } from "../../src/client/propose.ts";
import type { Session } from "../../src/client/session.ts";
import type { Digest } from "../../src/model/bytes.ts";
import type { CommandBody, CommandKind } from "../../src/model/commands.ts";
import { type ErrorCode, isShardpactError, type ShardpactError } from "../../src/model/errors.ts";
import type { RefTarget } from "../../src/model/names.ts";
import type { Input, Output } from "../sim/dataset-model.ts";
import { createManifests } from "../sim/manifests.ts";
import { below, between, chance, pick, type Random } from "../sim/scheduler.ts";
import { type Call, type Line, machineMs } from "./history.ts";

export const TAGS = ["prod", "next"];
const RUNS = ["run-1", "run-2", "run-3"];
const THINK_MS: readonly [number, number] = [0, 150];
const TIMEOUT_MS: readonly [number, number] = [800, 5_000];
const LAST_TIMEOUT_MS = 30_000;
const CALLS_MAX = 3;

/** What may come of a call without a violation: the group, or the way to it, was not there. */
const PASSING = new Set<ErrorCode>(["no_quorum", "timeout", "unavailable", "not_leader"]);

export interface WorkerOptions {
  readonly name: string;
  readonly session: Session;
  readonly random: Random;
  /** Datasets that are worked on now. */
  datasets(): readonly string[];
  write(line: Line): void;
  nextId(): number;
}

export interface Worker {
  /** Resolves when the operation under way after `stopped` answers true has ended. */
  run(stopped: () => boolean): Promise<void>;
  /** Reads head and tags of all of these, which must be answered. */
  readAll(datasets: readonly string[]): Promise<void>;
}

interface Known {
  head: { readonly version: number; readonly index: number; readonly root: Digest } | null;
  readonly roots: Map<number, Digest>;
  readonly tags: Map<string, number | null>;
}

interface Answer {
  readonly output: Output;
  readonly index: number | null;
}

export function createWorker({ name, session, random, datasets, write, nextId }: WorkerOptions): Worker {
  const manifests = createManifests();
  const known = new Map<string, Known>();
  let operations = 0;

  function knownOf(dataset: string): Known {
    const found = known.get(dataset) ?? { head: null, roots: new Map(), tags: new Map() };
    known.set(dataset, found);
    return found;
  }

  async function act(): Promise<void> {
    operations += 1;
    const dataset = pick(random, datasets());
    const { head } = knownOf(dataset);
    const dice = random();
    if (head === null ? dice < 0.5 : dice >= 0.35 && dice < 0.55) return read(dataset, { kind: "head" }, false);
    if (head === null || dice < 0.35) return commit(dataset);
    const version = 1 + below(random, head.version);
    if (dice < 0.7) return move(dataset, version);
    if (dice < 0.85) return read(dataset, { kind: "tag", tag: pick(random, TAGS) }, false);
    const run = pick(random, RUNS);
    if (dice < 0.95) return pin(dataset, run, version);
    return change(dataset, { kind: "unpin", run }, "pin.release", { dataset, run }, (code) =>
      code === "not_found" ? 0 : null,
    );
  }

  /** Makes the call, and again after a passing failure; writes both ends down. */
  async function record(
    call: Pick<Call, "dataset" | "input" | "commandId" | "last">,
    work: (o: { timeoutMs: number }) => Promise<Answer>,
    refused: (error: ShardpactError) => Answer | null,
  ): Promise<void> {
    const id = nextId();
    const callsMax = call.last || chance(random, 0.5) ? CALLS_MAX : 1;
    write({ kind: "call", id, process: name, callMs: machineMs(), ...call });
    let neverSent = true;
    for (let calls = 1; ; calls++) {
      const timeoutMs = call.last ? LAST_TIMEOUT_MS : Math.ceil(between(random, ...TIMEOUT_MS));
      try {
        const { output, index } = await work({ timeoutMs });
        return write({ kind: "return", id, returnMs: machineMs(), output, index, error: null, neverSent: false });
      } catch (error) {
        if (!isShardpactError(error)) throw error;
        const { code } = error;
        const answer = refused(error);
        if (answer !== null)
          return write({ kind: "return", id, returnMs: machineMs(), ...answer, error: code, neverSent: false });
        if (!PASSING.has(code)) {
          write({ kind: "wrong", what: `${name} was told ${code} for ${JSON.stringify(call)}: ${error.message}` });
        }
        neverSent &&= code === "unavailable";
        if (calls < callsMax && PASSING.has(code)) continue;
        return write({ kind: "return", id, returnMs: machineMs(), output: null, index: null, error: code, neverSent });
      }
    }
  }

  async function commit(dataset: string): Promise<void> {
    const mine = knownOf(dataset);
    const base = mine.head;
    const draft = manifests.draft(dataset, base, `${session.actor}-${name.replace("/", "-")}-${operations}`, random);
    try {
      await putObjects(session, draft.objects, { timeoutMs: Math.ceil(between(random, ...TIMEOUT_MS)) });
    } catch (error) {
      if (isShardpactError(error) && PASSING.has(error.code)) return;
      return write({ kind: "wrong", what: `${name} could not put pages: ${String(error)}` });
    }
    const { expectedHead, root, message } = draft;
    const commandId = commandIdOf("version.commit", session.actor, dataset, expectedHead, root, message, 0);
    const input: Input = { kind: "commit", expected: base?.version ?? null, root };
    await record(
      { dataset, input, commandId, last: false },
      async (o) => {
        const { version, index } = await commitDraft(session, draft, o);
        mine.head = { version, index, root };
        mine.roots.set(version, root);
        return { output: { kind: "ok", version, root }, index };
      },
      ({ code, details }) => {
        if (code !== "head_moved") return null;
        const head = details["head"] as Known["head"];
        mine.head = head;
        if (head !== null) mine.roots.set(head.version, head.root);
        return { output: { kind: "refused", version: head?.version ?? 0 }, index: null };
      },
    );
  }

  async function read(dataset: string, target: RefTarget & { kind: "head" | "tag" }, last: boolean): Promise<void> {
    const mine = knownOf(dataset);
    const input: Input = target.kind === "head" ? { kind: "head" } : { kind: "tag", tag: target.tag };
    const wholly = last || chance(random, 0.5);
    await record(
      { dataset, input, commandId: null, last },
      async (o) => {
        const resolved = await resolve(session, { dataset, target }, o);
        const { version, confirmation } = resolved;
        // The rest of `open()`: schema, vocabularies and pages from any replica, checked against the root.
        if (wholly) {
          const opened = await confirmedVersion(session, resolved, { ...o, stores: [] });
          await opened.page(0);
        }
        const { index, root } = version;
        mine.roots.set(version.version, root);
        if (target.kind === "tag") mine.tags.set(target.tag, version.version);
        else mine.head = { version: version.version, index, root };
        return { output: { kind: "ok", version: version.version, root }, index: confirmation.index };
      },
      ({ code }) => (code === "not_found" ? { output: { kind: "ok", version: 0, root: "" }, index: null } : null),
    );
  }

  function move(dataset: string, version: number): Promise<void> {
    const { tags } = knownOf(dataset);
    const tag = pick(random, TAGS);
    const expected = tags.get(tag) ?? null;
    const input: Input = { kind: "move", tag, version, expected };
    return change(dataset, input, "tag.move", { dataset, tag, version, expected }, (code, details) => {
      if (code !== "tag_moved") return null;
      const now = details["version"] as number | null;
      tags.set(tag, now);
      return now ?? 0;
    });
  }

  function pin(dataset: string, run: string, version: number): Promise<void> {
    const root = knownOf(dataset).roots.get(version);
    if (root === undefined) return Promise.resolve();
    const body = { dataset, run, version, root, note: "" };
    return change(dataset, { kind: "pin", run, version }, "pin.create", body, (code, details) =>
      code === "pin_conflict" ? (details["version"] as number) : null,
    );
  }

  /** A small command; `refusal` names the version in a refusal, null for any other code. */
  async function change<K extends CommandKind>(
    dataset: string,
    input: Input,
    kind: K,
    body: CommandBody<K>,
    refusal: (code: ErrorCode, details: Readonly<Record<string, unknown>>) => number | null,
  ): Promise<void> {
    const command = makeCommand(session, commandIdOf("chaos", name, operations), kind, body);
    await record(
      { dataset, input, commandId: command.id, last: false },
      async (o) => {
        const { index, result } = await propose(session, command, o);
        const version = Number(result["version"]);
        if (input.kind === "move") knownOf(dataset).tags.set(input.tag, version);
        return { output: { kind: "ok", version, root: "" }, index };
      },
      ({ code, details }) => {
        const version = refusal(code, details);
        return version === null ? null : { output: { kind: "refused", version }, index: null };
      },
    );
  }

  return {
    async run(stopped) {
      while (!stopped()) {
        await act();
        await sleep(between(random, ...THINK_MS));
      }
    },
    async readAll(all) {
      for (const dataset of all) {
        await read(dataset, { kind: "head" }, true);
        for (const tag of TAGS) await read(dataset, { kind: "tag", tag }, true);
      }
    },
  };
}
