/**
 * Owns the campaign of CI under raft.
 */
import { engineSuite } from "./suite.ts";

engineSuite("raft");
