/**
 * What the integration tests share: one nats-server without a group, one Postgres server.
 * Missing parts fail the run with the way out; nothing is skipped.
 */
import { join } from "node:path";
import type { TestProject } from "vitest/node";
import { startNats } from "../../src/cli/embedded/nats.ts";
import { startPostgres } from "../../src/cli/embedded/postgres.ts";
import { buildDist } from "./dist.ts";
import { tempDir } from "./temp-dir.ts";

declare module "vitest" {
  export interface ProvidedContext {
    /** A server on which clients without credentials may use any subject. */
    natsUrl: string;
    /** Superuser URL of the database `postgres`; tests make databases of their own. */
    postgresUrl: string;
  }
}

export default async function setup(project: TestProject): Promise<() => Promise<void>> {
  project.onTestsRerun(buildDist);
  const dir = await tempDir("servers");
  const [nats, postgres] = await Promise.all([
    startNats({ dir: join(dir.path, "nats") }),
    startPostgres({ dir: join(dir.path, "postgres") }),
  ]);
  project.provide("natsUrl", nats.url);
  project.provide("postgresUrl", postgres.url("postgres"));
  return async () => {
    await Promise.all([nats.stop(), postgres.stop()]);
    await dir.remove();
  };
}
