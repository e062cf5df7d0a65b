/**
 * Owns the campaign of CI under paxos.
 */
import { engineSuite } from "./suite.ts";

engineSuite("paxos");
