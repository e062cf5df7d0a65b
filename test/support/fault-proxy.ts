/**
 * A web proxy in front of a real server, with faults to order: what a load balancer, a bad disk or a bad line make of right answers.
 */
import { createServer, request as forward, type IncomingMessage, type ServerResponse } from "node:http";
import type { AddressInfo } from "node:net";
import { setTimeout as sleep } from "node:timers/promises";

/**
 * `short`: the connection breaks in the middle of the body. `less`, `empty`: an answer that says it is whole, of fewer bytes.
 * `stall`: half of the body, then nothing. `drip`: all of it, late and in crumbs. `no_range`: more than was asked for.
 * `grown`: a size that is not the object's.
 */
export const PROXY_FAULTS = [
  ...(["500", "503", "404", "reset", "hang", "short", "stall"] as const),
  ...(["less", "empty", "drip", "wrong", "no_range", "grown"] as const),
] as const;
export type ProxyFault = (typeof PROXY_FAULTS)[number];

export interface FaultProxy extends AsyncDisposable {
  readonly url: string;
  /** Says what becomes of a request; null: it is answered as it should be. */
  set(fault: (method: string, path: string) => ProxyFault | null): void;
  close(): Promise<void>;
}

/** @param origin `http://host:port`; requests are passed on as they are, so that their signatures hold */
export async function openFaultProxy(origin: string): Promise<FaultProxy> {
  const { hostname, port } = new URL(origin);
  let choose: (method: string, path: string) => ProxyFault | null = () => null;
  const server = createServer((from, to) => {
    const { method = "GET", url: path = "/", headers } = from;
    const fault = choose(method, path);
    if (fault === "hang") return;
    if (fault === "reset") return void to.destroy();
    if (fault === "500" || fault === "503" || fault === "404") return void refuse(to, fault, method);
    const upstream = forward({ hostname, port, method, path, headers }, (answer) => {
      pass(answer, to, method, fault).catch(() => to.destroy());
    });
    upstream.on("error", () => to.destroy());
    from.pipe(upstream);
  });
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
  const close = async (): Promise<void> => {
    server.closeAllConnections();
    await new Promise((resolve) => server.close(resolve));
  };
  return {
    url: `http://127.0.0.1:${(server.address() as AddressInfo).port}`,
    set: (fault) => void (choose = fault),
    close,
    [Symbol.asyncDispose]: close,
  };
}

const CODES = { "500": "InternalError", "503": "SlowDown", "404": "NoSuchKey" } as const;

function refuse(to: ServerResponse, status: keyof typeof CODES, method: string): void {
  to.writeHead(Number(status), { "content-type": "application/xml" });
  to.end(method === "HEAD" ? "" : `<Error><Code>${CODES[status]}</Code><Message>to order</Message></Error>`);
}

async function pass(
  from: IncomingMessage,
  to: ServerResponse,
  method: string,
  fault: ProxyFault | null,
): Promise<void> {
  const parts: Buffer[] = [];
  for await (const part of from) parts.push(part as Buffer);
  const body = Buffer.concat(parts);
  const { statusCode = 500, headers } = from;
  if (method === "HEAD" || fault === null) {
    const length = Number(headers["content-length"] ?? 0) + (fault === "grown" ? 1 : 0);
    to.writeHead(statusCode, method === "HEAD" ? { ...headers, "content-length": length } : headers);
    return void to.end(body);
  }
  const changed = changedBody(body, fault);
  const { "content-range": _, ...rest } = headers;
  const sent = { ...(fault === "no_range" ? rest : headers), "content-length": changed.byteLength };
  to.writeHead(fault === "no_range" ? 200 : statusCode, sent);
  if (fault === "short" || fault === "stall") {
    to.write(changed.subarray(0, changed.byteLength >> 1));
    await sleep(10);
    if (fault === "short") to.destroy();
    return;
  }
  if (fault === "drip") {
    const crumb = Math.max(1, Math.ceil(changed.byteLength / 5));
    for (let at = 0; at < changed.byteLength; at += crumb) {
      to.write(changed.subarray(at, at + crumb));
      await sleep(3);
    }
    return void to.end();
  }
  to.end(changed);
}

function changedBody(body: Buffer, fault: ProxyFault): Buffer {
  if (fault === "less") return body.subarray(0, Math.max(1, body.byteLength >> 1));
  if (fault === "empty") return Buffer.alloc(0);
  if (fault === "no_range") return Buffer.concat([Buffer.alloc(100, 7), body]);
  const changed = Buffer.from(body);
  if (fault === "wrong" && body.byteLength > 0)
    changed[body.byteLength >> 1] = (body[body.byteLength >> 1] as number) ^ 8;
  return changed;
}
