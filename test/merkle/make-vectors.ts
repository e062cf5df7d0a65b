/** Writes vectors.json. Run by hand, when a format is added: `npx tsx test/merkle/make-vectors.ts`. */
import { writeFileSync } from "node:fs";
import { makeVectors } from "./vectors.ts";

writeFileSync(new URL("vectors.json", import.meta.url), `${JSON.stringify(makeVectors(), null, 2)}\n`);
