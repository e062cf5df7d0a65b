/**
 * Owns the bench's side of `loader-client.ts`: a process for each loader that is measured.
 */
import { once } from "node:events";
import type { ClientRun, Job } from "./loader-client.ts";
import { forkScript } from "./built.ts";

export interface LoaderClient extends AsyncDisposable {
  run(): Promise<ClientRun>;
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
      const [run] = (await Promise.race([answered, ended])) as [ClientRun];
      return run;
    },
    async [Symbol.asyncDispose]() {
      child.kill();
      await ended.catch(() => undefined);
    },
  };
}
