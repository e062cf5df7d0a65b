/**
 * Owns the one error class of Shardpact and the closed list of its codes.
 *
 * Every error that leaves a public function is a `ShardpactError`: `message` says what happened to what,
 * `hint` says what to do next, `details` holds the figures, `cause` the error underneath.
 */

/** Every code an error can carry, with whether the same call may succeed later without a change by the caller. */
export const ERROR_CODES = {
  aborted: false, // the caller's AbortSignal fired
  budget_too_small: false, // the plan needs more memory than the caller allowed
  change_in_progress: true, // the change of the membership before is not complete
  class_unknown: false, // a class value that is not in the agreed vocabulary
  closed: false, // the resource was closed by its owner
  column_unknown: false,
  command_id_reused: false, // the same command id with another body
  config_invalid: false, // a configuration file or option does not validate
  configuration_moved: false, // the membership changed since the caller looked
  damaged: false, // stored bytes do not match their checksum or digest
  fenced: false, // another process runs with this replica's identity
  full_shuffle_too_costly: false,
  group_forked: false, // the group does not contain the history that the caller holds
  head_moved: false, // somebody else committed to the dataset first
  image_malformed: false,
  internal: false, // a bug in Shardpact
  invalid_argument: false,
  limit_exceeded: false, // a bound of model/limits.ts
  loader_busy: false, // a second iterator consumes while the first still does
  lock_mismatch: false, // the lock file and the group disagree
  no_quorum: true, // a majority of voters did not answer in time
  not_caught_up: true, // a learner lacks too much of the log to vote
  not_found: false,
  not_leader: true,
  null_found: false,
  page_missing: true, // a commit names a page that is not held
  pin_conflict: false,
  plan_mismatch: false, // a rank came with another order than the run has
  replica_diverged: false, // replicas hold different answers for the same log index
  resume_mismatch: false,
  revoked: false,
  root_mismatch: false, // bytes fetched for a root do not hash to it
  run_ended: false,
  schema_differs: false,
  setup_failed: false,
  shape_differs: false,
  shard_corrupt: false, // a leaf does not hash to its agreed digest, and no store has a good copy
  shard_malformed: false, // not an Arrow IPC file that can be published
  split_changed: false,
  store_failed: true, // a shard store could not be read or written
  tag_moved: false, // the tag no longer points where the caller expected
  timeout: true,
  type_unsupported: false,
  unavailable: true, // NATS or Postgres cannot be reached
  unauthorized: false,
  upgrade_required: false, // the log holds a command kind that this build does not know
  value_out_of_range: false,
  worker_failed: true, // the thread that reads and hashes, or one that decodes images, ended unexpectedly
} as const satisfies Record<string, boolean>;

export type ErrorCode = keyof typeof ERROR_CODES;

export interface ErrorOptionsOf {
  /** Figures and names a program may act on; must be JSON. */
  readonly details?: Readonly<Record<string, unknown>>;
  /** One sentence: what the reader should do next. */
  readonly hint?: string;
  readonly cause?: unknown;
}

/** The base and only error class: `code` is closed, `retryable` follows from it. */
export class ShardpactError extends Error {
  override readonly name = "ShardpactError";
  readonly code: ErrorCode;
  readonly retryable: boolean;
  readonly details: Readonly<Record<string, unknown>>;
  readonly hint: string;

  constructor(code: ErrorCode, message: string, options: ErrorOptionsOf = {}) {
    super(message, options.cause === undefined ? undefined : { cause: options.cause });
    this.code = code;
    this.retryable = ERROR_CODES[code];
    this.details = options.details ?? {};
    this.hint = options.hint ?? "";
  }

  /** What crosses the wire and what `--json` prints. */
  toJSON(): ErrorJson {
    return { code: this.code, message: this.message, details: this.details, hint: this.hint };
  }

  static fromJSON(json: ErrorJson): ShardpactError {
    const code: ErrorCode = json.code in ERROR_CODES ? (json.code as ErrorCode) : "internal";
    return new ShardpactError(code, json.message, { details: json.details ?? {}, hint: json.hint ?? "" });
  }
}

export interface ErrorJson {
  readonly code: string;
  readonly message: string;
  readonly details?: Readonly<Record<string, unknown>>;
  readonly hint?: string;
}

/** True for a ShardpactError with this code (or any code, when none is given). */
export function isShardpactError(error: unknown, code?: ErrorCode): error is ShardpactError {
  return error instanceof ShardpactError && (code === undefined || error.code === code);
}

/** The same error if it is ours, else `internal` (or `code`) around it. */
export function toShardpactError(error: unknown, code: ErrorCode = "internal"): ShardpactError {
  if (error instanceof ShardpactError) return error;
  const message = error instanceof Error ? error.message : String(error);
  return new ShardpactError(code, message, { cause: error });
}

/** Throws `internal` when a condition that the code relies on does not hold. Stays on in production. */
export function invariant(condition: unknown, message: string): asserts condition {
  if (!condition) throw new ShardpactError("internal", `invariant broken: ${message}`);
}
