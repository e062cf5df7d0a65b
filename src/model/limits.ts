/**
 * Owns every bound of the system in one place: message, queue, cache and object sizes.
 * Relations between the numbers are asserted at load.
 */
import { invariant } from "./errors.ts";

const KiB = 1024;
const MiB = 1024 * KiB;

export const LIMITS = {
  /** One message between replicas or between client and replica; larger things are chunked. */
  messageBytesMax: 512 * KiB,
  /** One command (JSON header and blob) in the log. */
  commandBytesMax: 256 * KiB,
  /** What a group must allow in `max_payload` of its nats-server. */
  natsMaxPayloadBytesMin: 1 * MiB,
  /** One manifest page: at most this many entries and bytes. */
  pageShardsMax: 1024,
  pageBytesMax: 192 * KiB,
  /** That one reader fetches at a time: up to `pageBytesMax` each, and a question to a majority for all. */
  pagesInFlightMax: 8,
  /** Canonical schema or class vocabulary object. */
  metaBytesMax: 192 * KiB,
  pagesPerVersionMax: 4096,
  splitsMax: 16,
  nameCharsMax: 128,
  shardNameBytesMax: 255,
  noteCharsMax: 1024,
  /** Leaf of a segment: the unit that is hashed and checked. */
  leafBytes: 128 * KiB,
  /** Arrow metadata of one segment (schema or batch header). */
  segmentMetadataBytesMax: 16 * MiB,
  segmentsPerShardMax: 1_000_000,
  /** Encoded segment index of one shard: 2 M leaves, a shard of 256 GiB. */
  segmentIndexBytesMax: 64 * MiB,
  /** One image of a folder that is published. */
  imageBytesMax: 256 * MiB,
  /** Threads that decode the images of one loader, and columns of batches that wait for them. */
  imageThreadsMax: 3,
  imageJobsWaitingMax: 64,
  votersMax: 7,
  learnersMax: 7,
  /** Entries and bytes in one append message, and append messages in flight to one follower. */
  appendEntriesMax: 512,
  appendBytesMax: 256 * KiB,
  inflightAppendsMax: 32,
  /** Proposals a leader accepted and has not applied yet. */
  proposalsInFlightMax: 4096,
  /** Entries kept in the core's memory behind the applied index, for followers that lag a little. */
  logCacheBytesMax: 16 * MiB,
  logCacheEntriesMax: 16_384,
  /** One piece of a snapshot on its way, and how many a receiver asks for at once. */
  snapshotChunkBytesMax: 256 * KiB,
  snapshotChunksInFlightMax: 4,
  /** What one replica sends of snapshots, to all that need one. */
  snapshotBytesPerSecondMax: 64 * MiB,
  /** Entries in one apply transaction. */
  applyEntriesMax: 512,
  /** Requests a replica works on at once; more are refused with `unavailable`. */
  apiInFlightMax: 1024,
  /** Pages one API answer returns. */
  apiRowsMax: 1024,
  /** Receipts in one answer: as many as fit, or a single one. */
  answerReceiptsBytesMax: 256 * KiB,
  answerReceiptsMax: 64,
  /** Pages, schemas and vocabularies that a client keeps after it has proven them by their digest. */
  clientObjectsBytesMax: 4 * MiB,
  /** Default deadlines. */
  openTimeoutMs: 10_000,
  proposeTimeoutMs: 10_000,
  requestTimeoutMs: 2_000,
  /** One request to a remote shard store, its bytes included: a piece of some MiB over a slow link. */
  storeRequestTimeoutMs: 60_000,
  /** How long `page.put` holds its digest for a commit to come, in log time. */
  pageHoldMs: 3_600_000,
  readerLeaseMsMax: 600_000,
} as const;

invariant(LIMITS.pageBytesMax < LIMITS.commandBytesMax, "a page fits a command");
invariant(LIMITS.commandBytesMax < LIMITS.messageBytesMax, "a command fits a message");
invariant(LIMITS.appendBytesMax + LIMITS.commandBytesMax <= LIMITS.messageBytesMax, "an append fits a message");
invariant(LIMITS.snapshotChunkBytesMax < LIMITS.messageBytesMax, "a piece of a snapshot fits a message");
invariant(LIMITS.answerReceiptsBytesMax + LIMITS.commandBytesMax <= LIMITS.messageBytesMax, "receipts fit an answer");
invariant(LIMITS.messageBytesMax <= LIMITS.natsMaxPayloadBytesMin, "a message fits NATS");
