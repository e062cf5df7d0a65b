/**
 * A plain web server over a folder, with ranged requests and faults to order.
 */
import { createReadStream } from "node:fs";
import { stat } from "node:fs/promises";
import { createServer, type ServerResponse } from "node:http";
import type { AddressInfo } from "node:net";
import { join } from "node:path";

/** What the next requests get instead of the file. */
export type HttpFault = "500" | "short" | "reset" | "no_range" | "hang" | "wrong";

export interface StaticServer extends AsyncDisposable {
  readonly url: string;
  /** Requests so far, and the bytes of files that were sent. */
  readonly counts: { requests: number; bytes: number };
  /** The next `times` ranged reads fail in this way. */
  fail(fault: HttpFault, times: number): void;
  close(): Promise<void>;
}

export async function serveFolder(folder: string): Promise<StaticServer> {
  const counts = { requests: 0, bytes: 0 };
  let faults: HttpFault[] = [];
  const server = createServer((request, response) => {
    counts.requests += 1;
    const path = join(folder, decodeURIComponent(new URL(request.url ?? "/", "http://x").pathname));
    stat(path).then(
      ({ size }) => {
        if (request.method === "HEAD") return void response.writeHead(200, { "content-length": size }).end();
        const [, from = "0", to = ""] = /^bytes=(\d+)-(\d+)$/.exec(request.headers.range ?? "") ?? [];
        send(path, Number(from), Math.min(size - 1, to === "" ? size - 1 : Number(to)), response, faults.shift());
      },
      () => response.writeHead(404).end(),
    );
  });

  function send(path: string, from: number, to: number, response: ServerResponse, fault: HttpFault | undefined): void {
    if (fault === "500") return void response.writeHead(500).end("broken");
    if (fault === "reset") return void response.destroy();
    if (fault === "hang") return;
    if (fault === "no_range") return void createReadStream(path).pipe(response.writeHead(200));
    const length = to - from + 1;
    counts.bytes += length;
    response.writeHead(206, { "content-length": length });
    if (fault === "wrong") return void response.end(Buffer.alloc(length, 7));
    if (fault !== "short") return void createReadStream(path, { start: from, end: to }).pipe(response);
    response.write(Buffer.alloc(length >> 1));
    setTimeout(() => response.destroy(), 10);
  }

  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
  const close = async (): Promise<void> => {
    server.closeAllConnections();
    await new Promise((resolve) => server.close(resolve));
  };
  return {
    url: `http://127.0.0.1:${(server.address() as AddressInfo).port}`,
    counts,
    fail(fault, times) {
      faults = Array<HttpFault>(times).fill(fault);
    },
    close,
    [Symbol.asyncDispose]: close,
  };
}
