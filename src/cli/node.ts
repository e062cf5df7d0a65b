/**
 * Owns `shardpact node`: one replica as a process, until it is told to stop.
 *
 * It prints a line when something changes that an operator would ask about. SIGTERM and SIGINT stop it cleanly; so does
 * the end of its standard input with --exit-with-parent, which is how a parent makes sure that it is never left behind.
 */
import { fstatSync, writeSync } from "node:fs";
import type { Command } from "commander";
import { ShardpactError } from "../model/errors.ts";
import { type Replica, type ReplicaEvent, loadReplicaConfig } from "../replica/index.ts";
import type { Refusal } from "../transport/port.ts";
import { EXIT, type Output, createOutput, exitCodeOf, printError } from "./output.ts";
import { openReplica } from "./wire.ts";

interface NodeOptions {
  readonly config: string;
  readonly json?: boolean;
  readonly exitWithParent?: boolean;
}

export function register(command: Command): void {
  command
    .requiredOption("--config <file>", "the replica's configuration (JSON)")
    .option("--json", "print one JSON object a line")
    .option("--exit-with-parent", "stop when standard input is closed")
    .addHelpText("after", "\nIt stops at SIGTERM or SIGINT. NATS and Postgres may come up later: it waits for them.")
    .action(async (options: NodeOptions) => {
      process.exitCode = await runNode(options);
    });
}

/** Resolves with the exit code once the replica has stopped. */
async function runNode({ config: file, json = false, exitWithParent = false }: NodeOptions): Promise<number> {
  const say = createSay(createOutput(json));
  const stop = listenForStop(exitWithParent);
  try {
    const config = await loadReplicaConfig(file);
    const { replica: id, genesis } = config;
    say("starting", `${id} of group ${genesis.name} is starting`, {
      replica: id,
      group: genesis.name,
      pid: process.pid,
    });
    const replica = await openReplica(config, {
      onEvent: (event) => say(event.kind, lineOf(event), { ...event }),
      onWait: (what, error) => say("waiting", `waiting for ${what}: ${error.message}`, { what, error: error.toJSON() }),
      signal: stop.signal,
    });
    return await runUntil(replica, stop.signal, say);
  } catch (error) {
    if (stop.signal.aborted) return EXIT.ok;
    return printError(error, json);
  } finally {
    stop.dispose();
  }
}

const STDOUT = 1;

type Say = (kind: string, text: string, data: Readonly<Record<string, unknown>>) => void;

async function runUntil(replica: Replica, signal: AbortSignal, say: Say): Promise<number> {
  const stopped = new Promise<null>((resolve) => {
    signal.addEventListener("abort", () => resolve(null), { once: true });
    if (signal.aborted) resolve(null);
  });
  const error = await Promise.race([replica.ended, stopped]);
  await replica.close();
  say("stopped", error === null ? "stopped" : `stopped: ${error.message}`, { error: error?.toJSON() ?? null });
  return error === null ? EXIT.ok : exitCodeOf(error);
}

/** The first stop asks politely; a second one ends the process. */
function listenForStop(withParent: boolean): { readonly signal: AbortSignal; dispose(): void } {
  const controller = new AbortController();
  const stop = (): void => {
    if (controller.signal.aborted) process.exit(EXIT.interrupted);
    controller.abort(new ShardpactError("aborted", "the replica was told to stop"));
  };
  const orphaned = (): void => {
    if (!controller.signal.aborted) stop();
  };
  process.on("SIGTERM", stop);
  process.on("SIGINT", stop);
  if (withParent) {
    process.stdin.on("end", orphaned).on("close", orphaned).on("error", orphaned);
    process.stdin.resume();
  }
  return {
    signal: controller.signal,
    dispose() {
      process.off("SIGTERM", stop);
      process.off("SIGINT", stop);
      if (withParent) process.stdin.destroy();
    },
  };
}

function createSay(output: Output): Say {
  const write = lineWriter();
  return (kind, text, data) => {
    const at = new Date().toISOString();
    write(output.json ? JSON.stringify({ at, kind, ...data, text }) : `${at} ${text}`);
  };
}

/** A log on a full disk loses lines and goes on when there is room: it does not end the replica. */
function lineWriter(): (line: string) => void {
  if (!fstatSync(STDOUT).isFile()) return (line) => void process.stdout.write(`${line}\n`);
  return (line) => {
    try {
      writeSync(STDOUT, `${line}\n`);
    } catch {
      // No room, or no disk: what the line would say is in `shardpact status` too.
    }
  };
}

function refusalLine({ operation, subject }: Refusal): string {
  const doing = operation === "publish" ? "publish to" : "subscribe to";
  return `NATS does not let this replica ${doing} '${subject}': compare its key and permissions in nats.conf`;
}

const SNAPSHOT_STEPS: Readonly<Record<Extract<ReplicaEvent, { kind: "snapshot" }>["step"], string>> = {
  sending: "is on its way to",
  sent: "is installed at",
  send_failed: "did not reach",
  receiving: "is being received from",
  installing: "is being installed, from",
  installed: "was installed, from",
  receive_failed: "could not be had from",
};

function snapshotLine({ step, peer, index, reason }: Extract<ReplicaEvent, { kind: "snapshot" }>): string {
  return `snapshot of index ${index} ${SNAPSHOT_STEPS[step]} ${peer}${reason === null ? "" : `: ${reason}`}`;
}

function membershipLine(
  member: string,
  { number, voters, votersOutgoing, learners }: Extract<ReplicaEvent, { kind: "membership" }>["configuration"],
): string {
  const ids = (members: readonly { id: string }[]): string => members.map(({ id }) => id).join(" ");
  const parts = [`voters ${ids(voters)}`];
  if (votersOutgoing.length > 0) parts.push(`with those before: ${ids(votersOutgoing)}`);
  if (learners.length > 0) parts.push(`learners ${ids(learners)}`);
  return `configuration ${number}: ${parts.join(", ")}; this replica: ${member === "none" ? "no member" : member}`;
}

function lineOf(event: ReplicaEvent): string {
  switch (event.kind) {
    case "state":
      return event.reason === null
        ? event.state.replace("_", "-")
        : `${event.state.replace("_", "-")}: ${event.reason}`;
    case "booted":
      return `booted: boot ${event.boot} of database ${event.incarnation}, log up to ${event.lastIndex}`;
    case "role":
      return `${event.role} in term ${event.term}, leader ${event.leader ?? "unknown"}`;
    case "membership":
      return membershipLine(event.member, event.configuration);
    case "stepped_down":
      return `gives up the lead: ${event.reason}`;
    case "snapshot":
      return snapshotLine(event);
    case "nats":
      if (event.refused !== null) return refusalLine(event.refused);
      return event.connected ? "NATS connected" : "NATS lost, dialling again";
    case "postgres":
      return event.up ? "Postgres connected" : `Postgres lost: ${event.reason ?? "unknown"}`;
  }
}
