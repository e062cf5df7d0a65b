/**
 * Owns what an operator asks the leader, on the verb `admin`: signed, as canonical JSON, so that its bytes are its meaning.
 */
import { z } from "zod";
import { errorReply } from "./api.ts";
import { memberChange } from "./group.ts";
import { LIMITS } from "./limits.ts";
import { replicaId } from "./names.ts";

const digest = z.templateLiteral(["b3:", z.string().regex(/^[0-9a-f]{64}$/)]);
const count = z.number().int().nonnegative();

/** What a signed request asks for. */
export const adminAction = z.discriminatedUnion("kind", [
  /** `expected`: digest of the configuration that the caller saw in force; no digest ever comes back. */
  z.object({ kind: z.literal("change"), change: memberChange, expected: digest }),
  /** `term`: of the leader that is to hand over; it has no other. */
  z.object({ kind: z.literal("transfer"), to: replicaId, term: count }),
]);
export type AdminAction = z.infer<typeof adminAction>;

/** What is signed, as canonical JSON. `nonce`: a request sent again under the same one is the same request. */
export const adminBody = z.object({
  groupId: digest,
  nonce: z.string().regex(/^[0-9a-f]{32}$/),
  /** Wall clock after which nobody takes it. */
  expiresAtMs: count,
  actor: z.string().min(1).max(LIMITS.nameCharsMax),
  action: adminAction,
});
export type AdminBody = z.infer<typeof adminBody>;

/** `admin`: to the leader. Signature: Ed25519 of the voter `signer` over hashAs("adminRequest", body). */
export const adminRequest = z.object({
  body: z.instanceof(Uint8Array),
  signer: z.string(),
  signature: z.instanceof(Uint8Array),
});
export type AdminRequest = z.infer<typeof adminRequest>;

/** `index`: of the change's first configuration, which is applied; of a transfer: 0. A joint change goes on by itself. */
export const adminReply = z.union([
  z.object({ ok: z.literal(true), index: count }),
  z.object({ ok: z.literal(false), error: errorReply, leader: z.string().nullable(), index: z.null() }),
]);
export type AdminReply = z.infer<typeof adminReply>;
