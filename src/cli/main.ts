#!/usr/bin/env node
/**
 * Owns the command line's door: finds the verb, loads only its file, and turns whatever it throws into an exit code.
 *
 * A verb's file is imported when that verb is run: a missing optional package breaks one verb, never `--help`.
 */
import { readFileSync } from "node:fs";
import { Command, CommanderError } from "commander";
import { ShardpactError } from "../model/errors.ts";
import { EXIT, EXIT_HELP, printError } from "./output.ts";

/** What a verb's file exports: it adds its arguments, options and action to the command made for it. */
export interface Verb {
  register(command: Command): void;
}

const VERBS: Readonly<Record<string, { readonly summary: string; load(): Promise<Verb> }>> = {
  up: { summary: "start a group on this machine: NATS, Postgres, three replicas", load: () => import("./up.ts") },
  status: { summary: "show who runs, who leads, how far each replica is", load: () => import("./status.ts") },
  publish: { summary: "publish files as a new version of a dataset", load: () => import("./publish.ts") },
  versions: { summary: "list datasets, or the versions of one", load: () => import("./versions.ts") },
  show: { summary: "show one version: splits, root, who committed it", load: () => import("./show.ts") },
  diff: { summary: "show what changed between two versions", load: () => import("./diff.ts") },
  plan: { summary: "what training on a version will cost, before it starts", load: () => import("./plan.ts") },
  tag: { summary: "point a tag at a version", load: () => import("./tag.ts") },
  pin: { summary: "pin a version to a run, and write the lock file", load: () => import("./pin.ts") },
  unpin: { summary: "release a run's pin", load: () => import("./unpin.ts") },
  verify: { summary: "check every byte of a version in a store", load: () => import("./verify.ts") },
  materialize: { summary: "write a version as plain Arrow files, verified", load: () => import("./materialize.ts") },
  revoke: { summary: "revoke a version or a shard: nobody can open it any more", load: () => import("./revoke.ts") },
  audit: { summary: "list runs, tags, pins, revocations; check replicas' databases", load: () => import("./audit.ts") },
  backup: { summary: "write a snapshot of a replica's database to a file", load: () => import("./backup.ts") },
  restore: { summary: "make a replica's database from a snapshot", load: () => import("./restore.ts") },
  recover: { summary: "found a new group on what a lost one agreed on", load: () => import("./recover.ts") },
  member: { summary: "list, add, promote, remove, replace replicas", load: () => import("./member.ts") },
  transfer: { summary: "hand the lead to another replica", load: () => import("./transfer.ts") },
  init: { summary: "make keys and configuration files for a real group", load: () => import("./init.ts") },
  node: { summary: "run one replica", load: () => import("./node.ts") },
};

const EXAMPLES = `
A first run:
  $ shardpact up                                    # a group in ./.shardpact, in a terminal of its own
  $ shardpact publish mnist ./digits                # folders train/ val/ test/ become splits
  $ shardpact tag mnist@v1 prod
  $ shardpact pin mnist@prod --run exp-42           # the group remembers; ./shardpact.lock goes into git
  $ shardpact verify mnist@v1                       # every leaf of every shard against the agreed hash

A version is written name, name@v3, name@tag or name@b3:<root digest>.
The group is found at --url, else SHARDPACT_URL, else ./shardpact.json, else nats://127.0.0.1:4222.
Every verb has --help with examples. Most take --json.
${EXIT_HELP}`;

await main(process.argv);

async function main(argv: readonly string[]): Promise<void> {
  process.stdout.on("error", endQuietly);
  const json = argv.includes("--json");
  try {
    const program = await buildProgram(argv[2]);
    await program.parseAsync([...argv]);
  } catch (error) {
    process.exitCode = error instanceof CommanderError ? usageExit(error, argv, json) : printError(error, json);
  }
}

/** The program with the asked-for verb's own options; other verbs only have their line in `--help`. */
async function buildProgram(asked: string | undefined): Promise<Command> {
  const program = new Command("shardpact")
    .description("Dataset versions that a whole training fleet agrees on.")
    .version(packageVersion())
    .helpOption("-h, --help", "show this, or a verb's options and examples")
    .helpCommand("help [verb]", "show a verb's options and examples")
    .showSuggestionAfterError()
    .configureOutput({ outputError: () => undefined }) // `usageExit` says it, in the form of every error
    .exitOverride();
  const wanted = asked === "help" ? process.argv[3] : asked;
  if (asked === "help" && wanted !== undefined && !Object.hasOwn(VERBS, wanted))
    program.error(`unknown command '${wanted}'`);
  for (const [name, verb] of Object.entries(VERBS)) {
    const command = program.command(name).summary(verb.summary).description(verb.summary).exitOverride();
    if (name === wanted) (await verb.load()).register(command);
  }
  return program.addHelpText("after", EXAMPLES);
}

/** Help and version were printed already; wrong usage reads like every other error, and says where its help is. */
function usageExit(error: CommanderError, argv: readonly string[], json: boolean): number {
  if (error.exitCode === 0) return EXIT.ok;
  if (!error.message.startsWith("error: ") && !error.message.includes("unknown command")) return EXIT.invalid;
  const verb = argv[2] !== undefined && Object.hasOwn(VERBS, argv[2]) ? `${argv[2]} ` : "";
  const [message = "", suggestion] = error.message.replace(/^error: /, "").split("\n");
  const hint = `${suggestion === undefined ? "" : `${suggestion.replace(/^\((.*)\)$/, "$1")} `}See shardpact ${verb}--help.`;
  return printError(new ShardpactError("invalid_argument", message, { hint }), json);
}

/** Whoever reads our output (`| head`) has seen enough. */
function endQuietly(error: NodeJS.ErrnoException): void {
  if (error.code === "EPIPE") process.exit(process.exitCode ?? EXIT.ok);
  throw error;
}

function packageVersion(): string {
  const manifest: unknown = JSON.parse(readFileSync(new URL("../../package.json", import.meta.url), "utf8"));
  return (manifest as { version: string }).version;
}
