/**
 * Owns what the verbs share: the options that find a group, the session they run in, and its end.
 */
import { InvalidArgumentError, Option, type Command } from "commander";
import { openConnection, type Connection } from "../connect.ts";
import { ShardpactError } from "../model/errors.ts";
import { createOutput, type Output } from "./output.ts";

export interface GroupOptions {
  readonly url?: string;
  readonly group?: string;
  readonly config?: string;
  readonly timeout: number;
  readonly json?: boolean;
}

/** What a verb works with. */
export interface Context extends Connection {
  readonly out: Output;
  readonly timeoutMs: number;
  /** Fires at Ctrl-C. */
  readonly signal: AbortSignal;
}

const DEFAULT_TIMEOUT_SECONDS = 10;

/** Adds the options that every verb which talks to a group takes. */
export function withGroupOptions(command: Command): Command {
  return command
    .option("--url <url>", "NATS servers, comma-separated")
    .option("--group <name>", "the group, when several answer")
    .option("--config <file>", "settings file instead of ./shardpact.json")
    .addOption(
      new Option("--timeout <seconds>", "give up after this long")
        .argParser(parseSeconds)
        .default(DEFAULT_TIMEOUT_SECONDS),
    )
    .option("--json", "machine-readable output");
}

/** Connects, runs the verb, closes whatever happens. Ctrl-C aborts what runs. */
export async function inGroup(o: GroupOptions, verb: (context: Context) => Promise<void>): Promise<void> {
  const out = createOutput(o.json === true);
  const timeoutMs = o.timeout * 1000;
  const controller = new AbortController();
  const interrupt = () => controller.abort(new Error("interrupted"));
  process.once("SIGINT", interrupt);
  try {
    await using connection = await openConnection({
      url: o.url,
      group: o.group,
      config: o.config,
      timeoutMs,
      signal: controller.signal,
      onNotice: out.notice,
    });
    await verb({ ...connection, out, timeoutMs, signal: controller.signal });
  } catch (cause) {
    if (!controller.signal.aborted) throw cause;
    const hint = "Run the same command again: what was done stays done, and is not done twice.";
    throw new ShardpactError("aborted", "interrupted", { hint, cause });
  } finally {
    process.removeListener("SIGINT", interrupt);
  }
}

/** A whole or broken number of seconds, at most an hour. */
export function parseSeconds(text: string): number {
  const value = Number(text);
  if (Number.isFinite(value) && value > 0 && value <= 3600) return value;
  throw new InvalidArgumentError("write seconds, more than 0.");
}
