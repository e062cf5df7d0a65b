/**
 * A real nats-server with JetStream, on a free port.
 */
import { mkdir } from "node:fs/promises";
import { join } from "node:path";
import { findNatsServer } from "../../src/cli/embedded/nats.ts";
import { greets } from "../../src/cli/embedded/ports.ts";
import { createServerProcess, type ServerProcess } from "../../src/cli/embedded/server-process.ts";
import { freePort } from "./free-port.ts";

export interface JetStream extends AsyncDisposable {
  /** `nats://host:port` */
  readonly url: string;
  readonly server: ServerProcess;
}

/** The caller stops it. */
export async function startJetStream(dir: string): Promise<JetStream> {
  await mkdir(dir, { recursive: true });
  const port = await freePort();
  const server = createServerProcess({
    ...{ name: "nats-server", command: await findNatsServer(), logFile: join(dir, "nats.log") },
    args: ["--jetstream", "--store_dir", join(dir, "js"), "--addr", "127.0.0.1", "--port", String(port)],
    ...{ stopSignal: "SIGINT", stopTimeoutMs: 3_000, readyTimeoutMs: 15_000 },
    ready: () => greets(port, "INFO ", 1_000),
  });
  await server.start();
  return { url: `nats://127.0.0.1:${port}`, server, [Symbol.asyncDispose]: () => server.stop() };
}
