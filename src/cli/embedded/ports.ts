/**
 * Owns small questions about TCP ports of this machine.
 */
import { type Socket, connect, createServer } from "node:net";

/** A port that was free a moment ago, on the loopback address. */
export function freePort(): Promise<number> {
  return new Promise((resolve, reject) => {
    const server = createServer();
    server.once("error", reject);
    server.listen(0, "127.0.0.1", () => {
      const address = server.address();
      const port = address !== null && typeof address === "object" ? address.port : 0;
      server.close(() => resolve(port));
    });
  });
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
