/**
 * Owns the port `Transport`: subjects, messages and requests, as core NATS has them.
 *
 * Lossy, reordering and duplicating by assumption. While disconnected nothing is queued: `publish` drops, `request` fails.
 * Every adapter passes `test/contract/transport.ts`.
 */

export interface Message {
  readonly subject: string;
  /** The receiver's own copy: it may keep it. */
  readonly data: Uint8Array;
  /** Where an answer goes; null when none is wanted. */
  readonly reply: string | null;
}

export interface Subscription {
  readonly subject: string;
  close(): void;
}

export interface RequestOptions {
  readonly timeoutMs: number;
  readonly signal?: AbortSignal;
}

/** The server does not let this connection use a subject: nothing of it will pass until permissions change. */
export interface Refusal {
  readonly operation: "publish" | "subscribe";
  readonly subject: string;
}

/** `refused`: what the server has just refused, once for each subject and connection; null when the connection changed. */
export type StatusListener = (connected: boolean, refused: Refusal | null) => void;

export interface Transport extends AsyncDisposable {
  readonly connected: boolean;
  /** The largest message the server takes; 0 until connected. */
  readonly payloadBytesMax: number;
  /** Sends now or drops (also when disconnected). Never throws for a lost connection. @throws `limit_exceeded`, `closed` */
  publish(subject: string, data: Uint8Array, reply?: string): void;
  /** `*` matches one token, a last `>` the rest. The handler must not throw; it runs for each message, in arrival order. */
  subscribe(subject: string, handler: (message: Message) => void): Subscription;
  /** A subject that only this connection listens on. */
  inbox(): string;
  /**
   * One answer. @throws `timeout`, `unavailable` (nobody listens, or disconnected; with `details.sent` when the connection
   * was lost after it had left), `aborted`, `closed`
   */
  request(subject: string, data: Uint8Array, options: RequestOptions): Promise<Uint8Array>;
  /**
   * Called with false when the connection is lost and true when it is back, and when the server refuses a subject; at
   * once with the current state and what was refused before. Returns an unsubscriber.
   */
  onStatus(listener: StatusListener): () => void;
  /** Resolves when what was published so far reached the server. @throws `timeout`, `unavailable` */
  flush(timeoutMs: number): Promise<void>;
  close(): Promise<void>;
}
