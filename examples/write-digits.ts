/**
 * Writes the digits of the examples as Arrow files that `shardpact publish` takes: train/ and val/ in a folder.
 * Run: npx tsx examples/write-digits.ts ./digits
 */
import { writeDigits } from "./support/digits.ts";

const dir = process.argv[2] ?? "./digits";
await writeDigits(dir);
console.log(`10,000 digits are in ${dir}: npx shardpact publish mnist ${dir}`);
