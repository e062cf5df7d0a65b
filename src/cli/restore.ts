/**
 * Owns `shardpact restore`: a replica's database out of a snapshot, where there was none.
 *
 * A restored replica has no promises of its own, and its group may know better: it doesn't vote. The exception is a
 * snapshot that founds its group (`shardpact recover`): nobody can have promised anything there.
 */
import type { Command } from "commander";
import { genesis as genesisSchema, type Genesis } from "../model/api.ts";
import { ShardpactError } from "../model/errors.ts";
import { restorePostgresSnapshot } from "../storage/postgres/snapshot-restore.ts";
import { openSnapshot } from "../storage/snapshot/file.ts";
import { createOutput } from "./output.ts";
import { snapshotJson, snapshotLine, withProgress } from "./snapshot-progress.ts";

interface RestoreOptions {
  readonly postgres: string;
  readonly replica: string;
  readonly json?: boolean;
}

const HELP = `
The database must be empty. The replica comes up without a vote, unless the snapshot founds its group (recover).

Example:
  $ createdb shardpact && shardpact restore main.snapshot --postgres postgres://shardpact@db-r1/shardpact --replica r1`;

export function register(command: Command): void {
  command
    .argument("<file>", "a snapshot, of backup or recover")
    .requiredOption("--postgres <url>", "an empty database")
    .requiredOption("--replica <id>", "whose database it becomes")
    .option("--json", "machine-readable output")
    .addHelpText("after", HELP)
    .action(async (file: string, { postgres: url, replica, json }: RestoreOptions) => {
      const out = createOutput(json === true);
      const { engine, name } = await groupOf(file, replica);
      const restored = await withProgress(out, (options) =>
        restorePostgresSnapshot(file, { ...options, url, replica, engine }),
      );
      const { info, voting, incarnation } = restored;
      out.data({ file, replica, voting, incarnation, ...snapshotJson(info) });
      out.line(`${replica} of ${name}: ${snapshotLine(info)}`);
      out.line(voting ? "It votes: the snapshot founds its group." : "It does not vote.");
    });
}

async function groupOf(file: string, replica: string): Promise<Genesis> {
  await using snapshot = await openSnapshot(file);
  const genesis = genesisSchema.parse(JSON.parse(new TextDecoder().decode(snapshot.info.genesis)));
  const ids = genesis.voters.map(({ id }) => id);
  if (ids.includes(replica)) return genesis;
  throw new ShardpactError("invalid_argument", `the group ${genesis.name} has no replica '${replica}'`, {
    details: { replicas: ids },
    hint: `Give one of ${ids.join(", ")} as --replica.`,
  });
}
