/**
 * Owns a stack of things to undo: last in, first out, each once, all of them even when one fails.
 * (Node 20 has no AsyncDisposableStack.)
 */
export interface Cleanup {
  defer(undo: () => Promise<unknown>): void;
  /** Idempotent. Rejects with the first failure, after everything was tried. */
  run(): Promise<void>;
}

export function createCleanup(): Cleanup {
  const undos: (() => Promise<unknown>)[] = [];
  return {
    defer: (undo) => void undos.push(undo),
    async run() {
      const failures: unknown[] = [];
      for (let undo = undos.pop(); undo !== undefined; undo = undos.pop()) {
        try {
          await undo();
        } catch (error) {
          failures.push(error);
        }
      }
      if (failures.length > 0) throw failures[0];
    },
  };
}
