/**
 * A TCP port that was free a moment ago.
 */
export { freePort } from "../../src/cli/embedded/ports.ts";
