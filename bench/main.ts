/**
 * Runs benches by name and prints what they measured.
 * Usage: npm run bench [-- commit loader …] [--json]
 */
import { parseArgs } from "node:util";
import { benchCommit } from "./commit.ts";
import { benchConfirm } from "./confirm.ts";
import { benchFailover } from "./failover.ts";
import { benchFeeding } from "./feeding.ts";
import { benchHash } from "./hash.ts";
import { benchImages } from "./images.ts";
import { benchLoader } from "./loader.ts";
import { benchFiles, benchPublish } from "./publish.ts";
import { type Figure, printTable } from "./report.ts";
import { benchScale } from "./scale.ts";

const BENCHES: Readonly<Record<string, (note: (line: string) => void) => Promise<Figure[]>>> = {
  commit: benchCommit,
  confirm: benchConfirm,
  failover: benchFailover,
  loader: benchLoader,
  hash: benchHash,
  images: benchImages,
  feeding: benchFeeding,
  publish: benchPublish,
  files: benchFiles,
  scale: benchScale,
};

const { values, positionals } = parseArgs({
  allowPositionals: true,
  options: { json: { type: "boolean", default: false } },
});
const names = positionals.length > 0 ? positionals : Object.keys(BENCHES);
for (const name of names) {
  const bench = BENCHES[name];
  if (!bench) {
    console.error(`there is no bench '${name}'; there are: ${Object.keys(BENCHES).join(", ")}`);
    process.exit(2);
  }
  const figures = await bench((line) => console.error(`  ${name}: ${line}`));
  if (values.json) for (const figure of figures) console.log(JSON.stringify(figure));
  else printTable(figures);
}
