/**
 * A real S3 server over a folder, on a free port; `npm test` builds it once (scripts/setup/s3-server.mjs).
 */
import { existsSync } from "node:fs";
import { mkdir } from "node:fs/promises";
import { homedir } from "node:os";
import { join } from "node:path";
import { createServerProcess } from "../../src/cli/embedded/server-process.ts";
import { freePort } from "./free-port.ts";

const BINARY = join("shardpact", "versitygw", "bin", "versitygw-v1.8.0");
/** Of the server's root user: known to nobody else, and worth nothing. */
export const S3_CREDENTIALS = { AWS_ACCESS_KEY_ID: "test-access", AWS_SECRET_ACCESS_KEY: "test-secret-key" };

export interface S3Server extends AsyncDisposable {
  /** Buckets are folders in here, objects files in them. */
  readonly dir: string;
  /** Address of a store in a new bucket. */
  bucket(name: string): Promise<string>;
  stop(): Promise<void>;
}

/** The caller stops it; the process's AWS credentials become this server's. */
export async function startS3(dir: string): Promise<S3Server> {
  const binary = join(process.env["XDG_CACHE_HOME"] || join(homedir(), ".cache"), BINARY);
  if (!existsSync(binary)) throw new Error(`no S3 server at ${binary}: run \`node scripts/setup.mjs --tests\``);
  const data = join(dir, "data");
  await mkdir(data, { recursive: true });
  const port = await freePort();
  const endpoint = `http://127.0.0.1:${port}`;
  const server = createServerProcess({
    ...{ name: "versitygw", command: binary, logFile: join(dir, "s3.log"), stopSignal: "SIGTERM" },
    args: ["--quiet", "--port", `127.0.0.1:${port}`, "posix", data],
    env: {
      ROOT_ACCESS_KEY: S3_CREDENTIALS.AWS_ACCESS_KEY_ID,
      ROOT_SECRET_KEY: S3_CREDENTIALS.AWS_SECRET_ACCESS_KEY,
    },
    ...{ stopTimeoutMs: 3_000, readyTimeoutMs: 15_000 },
    ready: () =>
      fetch(endpoint).then(
        () => true,
        () => false,
      ),
  });
  await server.start();
  Object.assign(process.env, S3_CREDENTIALS);
  return {
    dir: data,
    async bucket(name) {
      await mkdir(join(data, name));
      return `s3://${name}/shards?endpoint=${encodeURIComponent(endpoint)}`;
    },
    stop: () => server.stop(),
    [Symbol.asyncDispose]: () => server.stop(),
  };
}
