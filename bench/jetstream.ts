/**
 * Owns a peer of the commit bench: a key-value bucket of three replicas in JetStream on three nats-servers, driven by NATS'
 * own Go client. By default JetStream acknowledges before the disk has it (it syncs every two minutes); `always` syncs first.
 */
import { execFile } from "node:child_process";
import { mkdir, writeFile } from "node:fs/promises";
import path from "node:path";
import { promisify } from "node:util";
import { findNatsServer } from "../src/cli/embedded/nats.ts";
import { greets } from "../src/cli/embedded/ports.ts";
import { createServerProcess } from "../src/cli/embedded/server-process.ts";
import { freePort } from "../test/support/free-port.ts";
import { type PutFigures, buildDriver, driverCounts } from "./etcd.ts";
import { type Figure, rate } from "./report.ts";

const VERSION = "v1.53.1";
const READY_TIMEOUT_MS = 15_000;

const SYNCS = ["default", "always"] as const;
type Sync = (typeof SYNCS)[number];

/** Our commits beside JetStream's puts at the same client counts. `dir` must be on the disk that ours used. */
export async function besideJetStream(
  ours: readonly PutFigures[],
  dir: string,
  secondsEach: number,
  note: (line: string) => void,
): Promise<Figure[]> {
  const figures: Figure[] = [];
  for (const sync of SYNCS) {
    note(`JetStream on three nats-servers, sync_interval: ${sync}, driven by NATS' Go client`);
    const counts = ours.map(({ clients }) => clients);
    const theirs = await measureJetStream(dir, sync, counts, secondsEach);
    for (const [i, { clients, perSecond }] of ours.entries()) {
      const peer = { name: `JetStream R3, sync ${sync}`, value: theirs[i]?.perSecond ?? Number.NaN };
      figures.push(
        rate("commit", `commits, ${clients} client${clients === 1 ? "" : "s"}`, "1/s", perSecond, peer, null),
      );
    }
  }
  return figures;
}

/** Puts per second at each client count. */
async function measureJetStream(
  dir: string,
  sync: Sync,
  clients: readonly number[],
  secondsEach: number,
): Promise<PutFigures[]> {
  const driver = await buildDriver("jetstream-driver", VERSION);
  const binary = await findNatsServer();
  const ports = await Promise.all([0, 1, 2].map(async () => ({ client: await freePort(), route: await freePort() })));
  const routes = ports.map(({ route }) => `"nats-route://127.0.0.1:${route}"`).join(", ");
  const servers = await Promise.all(
    ports.map(async ({ client, route }, i) => {
      const home = path.join(dir, `jetstream-${sync}-n${i + 1}`);
      await mkdir(home, { recursive: true });
      const store = `store_dir: "${home}"${sync === "always" ? ", sync_interval: always" : ""}`;
      const config = `server_name: n${i + 1}
listen: "127.0.0.1:${client}"
jetstream { ${store} }
cluster { name: bench, listen: "127.0.0.1:${route}", routes: [${routes}] }
`;
      await writeFile(path.join(home, "nats.conf"), config);
      return createServerProcess({
        name: "nats-server",
        command: binary,
        args: ["-c", path.join(home, "nats.conf")],
        logFile: path.join(home, "nats.log"),
        stopSignal: "SIGINT",
        stopTimeoutMs: 5_000,
        readyTimeoutMs: READY_TIMEOUT_MS,
        ready: () => greets(client, "INFO ", 1_000),
      });
    }),
  );
  try {
    await Promise.all(servers.map((server) => server.start()));
    const url = ports.map(({ client }) => `nats://127.0.0.1:${client}`).join(",");
    const { stdout } = await promisify(execFile)(driver, ["-url", url, ...driverCounts(clients, secondsEach)]);
    return stdout
      .trim()
      .split("\n")
      .map((line) => JSON.parse(line) as PutFigures);
  } finally {
    await Promise.all(servers.map((server) => server.stop()));
  }
}
