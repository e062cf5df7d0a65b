/**
 * Owns `npm run setup`: brings the three native parts that npm alone does not bring, nats-server, Postgres and tfjs-node;
 * with `--tests` also the servers that only tests need.
 *
 * Idempotent: a step that finds its part in place costs milliseconds. Downloads and builds live in the user's cache
 * folder, so that a fresh `npm ci` does not pay for them again. Plain JavaScript without dependencies: it runs first.
 */
import { setupNatsServer } from "./setup/nats-server.mjs";
import { setupPostgres } from "./setup/postgres.mjs";
import { setupS3Server } from "./setup/s3-server.mjs";
import { runSteps } from "./setup/steps.mjs";
import { setupTfjsNode } from "./setup/tfjs-node.mjs";

const ok = await runSteps([
  { name: "Node.js", run: checkNode },
  { name: "nats-server", run: setupNatsServer },
  { name: "Postgres", run: setupPostgres },
  { name: "tfjs-node", run: setupTfjsNode },
  ...(process.argv.includes("--tests") ? [{ name: "S3 server", run: setupS3Server }] : []),
]);
process.exitCode = ok ? 0 : 1;

function checkNode() {
  const [major = 0, minor = 0] = process.versions.node.split(".").map(Number);
  if (major < 20 || (major === 20 && minor < 19)) {
    throw new Error(`Node ${process.versions.node} is too old.\nInstall Node 20.19 or later.`);
  }
  return `${process.versions.node}, ${process.platform}-${process.arch}`;
}
