/**
 * Owns `shardpact recover`: what a surviving database holds becomes the history of a new group.
 *
 * After a majority is lost for good, what it acknowledged last may be lost with it; nobody can tell. So the survivors
 * don't go on in its name: the new group has an id of its own, and its genesis says which group it came from, up to
 * which index and chain. The surviving database is only read.
 */
import { existsSync } from "node:fs";
import { mkdir, readFile, rm } from "node:fs/promises";
import { join, resolve } from "node:path";
import type { Command } from "commander";
import { genesis as genesisSchema, type Genesis } from "../model/api.ts";
import { ShardpactError } from "../model/errors.ts";
import { genesisPayload } from "../replica/index.ts";
import { exportPostgresSnapshot } from "../storage/postgres/snapshot-export.ts";
import type { SnapshotInfo, SnapshotOptions } from "../storage/port.ts";
import { refoundSnapshot } from "../storage/snapshot/refound.ts";
import { writeWhole } from "./embedded/group-files.ts";
import { addGroupFileOptions, type InitOptions, initGroup } from "./init.ts";
import { createOutput } from "./output.ts";
import { snapshotJson, snapshotLine, withProgress } from "./snapshot-progress.ts";

interface RecoverOptions extends Omit<InitOptions, "dir" | "engine"> {
  readonly survivor: string;
  readonly out: string;
  readonly forceNewGroup?: boolean;
}

export interface Recovered {
  readonly groupId: string;
  readonly snapshot: string;
  readonly files: readonly string[];
  readonly info: SnapshotInfo;
  readonly parent: NonNullable<Genesis["parent"]>;
}

const HELP = `
Stop what is left of the old group first, and take the survivor that is furthest (shardpact status).

Example:
  $ shardpact recover --force-new-group --survivor postgres://shardpact@db-r2/shardpact --name main2 --out recovered \\
      --nats nats://n1:4222 --postgres 'postgres://shardpact@db-{id}/shardpact2'
  $ shardpact restore recovered/founding.snapshot --replica r1 --postgres postgres://shardpact@db-r1/shardpact2
  … the same for r2 and r3, then start each with its recovered/<id>/replica.json.`;

export function register(command: Command): void {
  addGroupFileOptions(command)
    .requiredOption("--survivor <url>", "database of a replica of the lost group; only read")
    .requiredOption("--name <name>", "name of the new group")
    .requiredOption("--out <dir>", "where the new group's files go")
    .option("--force-new-group", "yes: locks and pins of the old group will not be taken by the new one")
    .addHelpText("after", HELP)
    .action(async (options: RecoverOptions) => {
      const out = createOutput(options.json === true);
      const { info, parent, ...made } = await withProgress(out, (o) => recoverGroup(options, o));
      out.data({ ...made, parent, ...snapshotJson(info) });
      out.line(`${made.snapshot}: ${snapshotLine(info)}`);
      out.line(`It goes on after index ${parent.index} of group ${parent.groupId}.`);
      for (const file of made.files) out.line(`  ${file}`);
    });
}

/** @throws ShardpactError `invalid_argument` (not forced), `config_invalid`, and as taking a snapshot does */
export async function recoverGroup(options: RecoverOptions, progress: SnapshotOptions = {}): Promise<Recovered> {
  if (options.forceNewGroup !== true)
    throw new ShardpactError("invalid_argument", "a new group forgets what only the lost majority knew", {
      hint: "If the databases cannot be brought back, run it again with --force-new-group.",
    });
  const dir = resolve(options.out);
  const groupFile = join(dir, "group.json");
  if (existsSync(groupFile))
    throw new ShardpactError("config_invalid", `${groupFile} is there already`, { hint: "Give another --out." });
  const old = join(dir, "parent.snapshot");
  const snapshot = join(dir, "founding.snapshot");
  const { groupId, applied, genesis } = await exportInto(options.survivor, dir, old, progress);
  const { engine } = genesisSchema.parse(JSON.parse(new TextDecoder().decode(genesis)));
  await initGroup({ ...options, dir, engine });
  const parent = { groupId, index: applied.index, chain: applied.chain };
  const made = genesisSchema.parse(JSON.parse(await readFile(groupFile, "utf8")));
  await writeWhole(groupFile, { ...made, parent }, 0o644);
  // The configurations hold the genesis: written again, with the same keys.
  const files = await initGroup({ ...options, dir, engine });
  const info = await refoundSnapshot(old, snapshot, genesisPayload({ ...made, parent }), progress);
  await rm(old);
  return { groupId: files.groupId, files: files.files, snapshot, info, parent };
}

async function exportInto(url: string, dir: string, path: string, progress: SnapshotOptions): Promise<SnapshotInfo> {
  await mkdir(dir, { recursive: true });
  return await exportPostgresSnapshot({ url }, path, progress);
}
