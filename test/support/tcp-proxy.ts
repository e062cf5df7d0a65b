/**
 * A TCP proxy on a free port that can go away and come back, fall silent one way or both, or take its time: a bad
 * network without touching the servers.
 *
 * TCP loses nothing inside a connection, so neither does this: what is held flows later, or never when the connection ends.
 */
import { type AddressInfo, type Socket, connect, createServer } from "node:net";

/** From who dials to who listens, or back. */
export type Way = "there" | "back";

export interface TcpProxy {
  readonly port: number;
  /** Drops every connection and refuses new ones. */
  down(): Promise<void>;
  up(): Promise<void>;
  /** Lets nothing through that way, not even that a connection ended; senders notice when buffers are full. */
  hold(way: Way): void;
  /** Ends all holding and delaying: what has waited flows now. */
  flow(): void;
  /** Everything takes this much longer, each way. */
  delay(ms: number): void;
  close(): Promise<void>;
}

/** Bytes that wait in one direction of one connection before its sender has to. */
const WAITING_BYTES_MAX = 256 * 1024;

interface Weather {
  readonly held: Set<Way>;
  delayMs: number;
}

/** One direction of one connection. */
interface Pump {
  /** The weather has changed. */
  turn(): void;
  stop(): void;
}

export async function openTcpProxy(host: string, port: number): Promise<TcpProxy> {
  const sockets = new Set<Socket>();
  const pumps = new Set<Pump>();
  const weather: Weather = { held: new Set(), delayMs: 0 };
  const server = createServer((client) => {
    const upstream = connect(port, host);
    client.setNoDelay(true);
    upstream.setNoDelay(true);
    for (const [from, to, way] of [
      [client, upstream, "there"],
      [upstream, client, "back"],
    ] as const) {
      sockets.add(from);
      const pump = startPump(from, to, () => ({ held: weather.held.has(way), delayMs: weather.delayMs }));
      pumps.add(pump);
      from.on("close", () => sockets.delete(from));
      // Whether `from` may know of it is for the pump of the other direction to say.
      to.on("close", () => {
        pump.stop();
        pumps.delete(pump);
      });
    }
  });
  const listen = (at: number): Promise<void> =>
    new Promise((resolve, reject) => {
      server.once("error", reject);
      server.listen(at, "127.0.0.1", () => {
        server.off("error", reject);
        resolve();
      });
    });
  await listen(0);
  const own = (server.address() as AddressInfo).port;
  let listening = true;
  const down = async (): Promise<void> => {
    if (!listening) return;
    listening = false;
    const closed = new Promise((resolve) => server.close(resolve));
    for (const socket of sockets) socket.destroy();
    await closed;
  };
  const turn = (): void => {
    for (const pump of pumps) pump.turn();
  };
  return {
    port: own,
    down,
    up: async () => {
      if (listening) return;
      await listen(own);
      listening = true;
    },
    hold: (way) => void weather.held.add(way),
    flow() {
      weather.held.clear();
      weather.delayMs = 0;
      turn();
    },
    delay(ms) {
      weather.delayMs = ms;
    },
    close: down,
  };
}

function startPump(from: Socket, to: Socket, weather: () => { held: boolean; delayMs: number }): Pump {
  let waiting: { readonly chunk: Buffer; readonly dueMs: number }[] = [];
  let bytes = 0;
  let ended = false;
  let timer: NodeJS.Timeout | null = null;

  function push(): void {
    const { held, delayMs } = weather();
    if (timer !== null) clearTimeout(timer);
    timer = null;
    if (held || to.destroyed) return;
    const nowMs = performance.now();
    // Without a delay all is due, also what came while there was one.
    while (waiting[0] !== undefined && (delayMs === 0 || waiting[0].dueMs <= nowMs)) {
      const { chunk } = waiting[0];
      waiting = waiting.slice(1);
      bytes -= chunk.byteLength;
      to.write(chunk);
    }
    if (waiting[0] !== undefined) timer = setTimeout(push, Math.max(1, waiting[0].dueMs - nowMs));
    else if (ended) to.end(() => to.destroy());
    if (bytes < WAITING_BYTES_MAX && !to.writableNeedDrain) from.resume();
  }

  from.on("data", (chunk: Buffer) => {
    waiting.push({ chunk, dueMs: performance.now() + weather().delayMs });
    bytes += chunk.byteLength;
    push();
    if (bytes >= WAITING_BYTES_MAX || to.writableNeedDrain) from.pause();
  });
  to.on("drain", push);
  const end = (): void => {
    ended = true;
    push();
  };
  from.on("end", end);
  from.on("close", end);
  from.on("error", end);
  return {
    turn: push,
    stop() {
      if (timer !== null) clearTimeout(timer);
      waiting = [];
    },
  };
}
