/**
 * Owns the one error class of the consensus core. It is thrown for two things only: bytes that are no message
 * (`malformed_message`, by decode) and a broken invariant (`invariant`, by step): after that the engine must be thrown away.
 */

export type ConsensusFault = "malformed_message" | "invariant";

export class ConsensusError extends Error {
  override readonly name = "ConsensusError";
  readonly fault: ConsensusFault;

  constructor(fault: ConsensusFault, message: string) {
    super(message);
    this.fault = fault;
  }
}

/** Stays on in production: a core that is wrong must stop before it promises anything more. */
export function invariant(condition: unknown, message: string): asserts condition {
  if (!condition) throw new ConsensusError("invariant", `consensus invariant broken: ${message}`);
}
