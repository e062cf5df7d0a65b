/**
 * Owns small questions about TCP ports of this machine.
 */
import { randomInt } from "node:crypto";
import { type Socket, connect, createServer } from "node:net";
import { ShardpactError } from "../../model/errors.ts";

/**
 * Below what systems give to outgoing connections (from 32,768 on Linux). In that range a port may be taken while its server
 * is down, even by a client that redials it and so connects to itself.
 */
const PORTS = { first: 10_240, last: 32_767 } as const;
const TRIES_MAX = 64;

/** A port that was free a moment ago, on the loopback address. @throws ShardpactError `setup_failed` */
export async function freePort(): Promise<number> {
  for (let tries = 0; tries < TRIES_MAX; tries++) {
    const port = randomInt(PORTS.first, PORTS.last + 1);
    if (await canListen(port)) return port;
  }
  throw new ShardpactError(
    "setup_failed",
    `${TRIES_MAX} ports between ${PORTS.first} and ${PORTS.last} are all in use`,
  );
}

/** `wanted` if nobody listens there, else any free port. */
export async function freePortNear(wanted: number | null): Promise<number> {
  return wanted !== null && (await canListen(wanted)) ? wanted : freePort();
}

export function canListen(port: number): Promise<boolean> {
  return new Promise((resolve) => {
    const server = createServer();
    server.once("error", () => resolve(false));
    server.listen(port, "127.0.0.1", () => server.close(() => resolve(true)));
  });
}

/** True when something on the port says a line that starts with `greeting` within the time. */
export function greets(port: number, greeting: string, timeoutMs: number): Promise<boolean> {
  return new Promise((resolve) => {
    const socket: Socket = connect({ port, host: "127.0.0.1" });
    const end = (answer: boolean) => {
      socket.destroy();
      resolve(answer);
    };
    socket.setTimeout(timeoutMs, () => end(false));
    socket.once("error", () => end(false));
    socket.once("data", (chunk) => end(chunk.toString("latin1").startsWith(greeting)));
  });
}
