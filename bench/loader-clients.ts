/**
 * Owns the bench's side of `loader-client.ts`: a process for each loader that is measured.
 */
import { once } from "node:events";
import type { Job } from "./loader-client.ts";
import type { Run } from "./peers.ts";
import { forkScript } from "./built.ts";

export interface LoaderClient extends AsyncDisposable {
  run(): Promise<Run>;
}

export function startClient(job: Job): LoaderClient {
  const child = forkScript("loader-client.ts");
  child.send(job);
  const ended = once(child, "exit").then(([code, signal]): never => {
    throw new Error(`the bench's ${job.kind} ended: ${String(signal ?? code)}`);
  });
  ended.catch(() => undefined);
  return {
    async run() {
      const answered = once(child, "message");
      child.send("run");
      const [run] = (await Promise.race([answered, ended])) as [Run];
      return run;
    },
    async [Symbol.asyncDispose]() {
      child.kill();
      await ended.catch(() => undefined);
    },
  };
}
