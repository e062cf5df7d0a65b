/**
 * Owns `shardpact backup`: a snapshot of one replica's database, taken beside the running replica.
 */
import type { Command } from "commander";
import { exportPostgresSnapshot } from "../storage/postgres/snapshot-export.ts";
import { createOutput } from "./output.ts";
import { snapshotJson, snapshotLine, withProgress } from "./snapshot-progress.ts";

interface BackupOptions {
  readonly postgres: string;
  readonly out: string;
  readonly json?: boolean;
}

const HELP = `
It only reads, from one moment; the replica goes on meanwhile. Any replica will do: at one index all of them give the
same bytes. Shards are not in it: their store has its own backup.

Example:
  $ shardpact backup --postgres postgres://shardpact@db-r1/shardpact --out main.snapshot`;

export function register(command: Command): void {
  command
    .requiredOption("--postgres <url>", "database of a replica")
    .requiredOption("--out <file>", "file to write")
    .option("--json", "machine-readable output")
    .addHelpText("after", HELP)
    .action(async ({ postgres, out: path, json }: BackupOptions) => {
      const out = createOutput(json === true);
      const info = await withProgress(out, (options) => exportPostgresSnapshot({ url: postgres }, path, options));
      out.data({ file: path, ...snapshotJson(info) });
      out.line(`${path}: ${snapshotLine(info)}`);
    });
}
