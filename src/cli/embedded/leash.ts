/**
 * Owns the promise that no child outlives this process, however this process ends (SIGKILL included).
 *
 * One small shell, in a session of its own so that Ctrl-C doesn't reach it, reads the ids of the children from a pipe. The
 * pipe closes when this process is gone; then the shell interrupts the last ids it read, and kills what is left.
 */
import { type ChildProcess, spawn } from "node:child_process";

/** A line replaces the one before it; a torn last line is ignored because `read` fails on it. */
const SHELL = `
pids=""
while read -r line; do pids="$line"; done
[ -z "$pids" ] && exit 0
kill -INT $pids 2>/dev/null
for i in 1 2 3 4 5 6 7 8 9 10; do
  sleep 0.5
  kill -0 $pids 2>/dev/null || exit 0
done
kill -KILL $pids 2>/dev/null`;

const held = new Set<number>();
let shell: ChildProcess | null = null;

/** From now on the process ends with this one. */
export function hold(pid: number): void {
  held.add(pid);
  tell();
}

/** The process has ended: its id may be reused by a stranger. */
export function release(pid: number): void {
  if (held.delete(pid)) tell();
}

function tell(): void {
  if (shell === null) {
    const started = spawn("/bin/sh", ["-c", SHELL], { stdio: ["pipe", "ignore", "ignore"], detached: true });
    started.on("error", () => (shell = null));
    started.on("exit", () => (shell = null));
    started.stdin.on("error", () => {});
    // Neither the shell nor its pipe keeps this process alive.
    started.unref();
    (started.stdin as unknown as { unref?: () => void }).unref?.();
    shell = started;
  }
  shell.stdin?.write(`${[...held].join(" ")}\n`);
}
