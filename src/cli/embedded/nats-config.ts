/**
 * Owns the text of the shipped nats.conf: who may say what on the group's subjects.
 *
 * Only replica r's NKey may publish `shardpact.<group>.<peer, snapshot or bulk>.*.<r>`, so a message's sender is what its subject says.
 * Clients come without credentials and may only ask; what they are told is signed, so that they need not trust NATS.
 * What NATS can't enforce for clients without credentials: that one listens only on its own inbox. Whoever can reach
 * the server can read answers (they hold no secrets) and can send junk to inboxes (it fails the signature check).
 */

export interface NatsMember {
  readonly id: string;
  /** Public NKey, `U…`. */
  readonly nkey: string;
}

/** Who may use the group's subjects. */
export interface NatsAccess {
  readonly group: string;
  readonly members: readonly NatsMember[];
}

export interface NatsConfigOptions {
  /** Null: no authentication, any subject for anybody (tests of the transport alone). */
  readonly access: NatsAccess | null;
  /** `127.0.0.1` or `0.0.0.0`. */
  readonly host: string;
  readonly port: number;
  /** Servers of one cluster share one file: a route to itself is ignored. Null: a single server. */
  readonly cluster: NatsClusterConfig | null;
}

export interface NatsClusterConfig {
  readonly port: number;
  readonly routes: readonly string[];
  /** False: tells clients and other servers of no server; they know what they were configured with. Default: true. */
  readonly announced?: boolean;
}

/** Password of the user that the server gives to connections without credentials. No secret: see above. */
const CLIENT = "client";
const USERS_END = "\n  ]\n}";

/** What replicas say to each other: `<kind>.<to>.<from>`. */
const REPLICA_SUBJECTS = ["peer", "snapshot", "bulk"];

/** Pure: the whole configuration file. */
export function natsConfig({ access, host, port, cluster }: NatsConfigOptions): string {
  return `# Messaging for Shardpact. Made by \`shardpact init\`; see docs/operations.md.
listen: "${host}:${port}"

# A message of the group is at most 512 KiB; replicas refuse a server that takes less than this.
max_payload: 1MB
# A peer that hangs is dropped after two missed pings.
ping_interval: "5s"
ping_max: 2
write_deadline: "2s"
${cluster === null ? "" : clusterBlock(cluster)}${access === null ? "" : accessBlock(access)}`;
}

function accessBlock({ group, members }: NatsAccess): string {
  return `
authorization {
  CLIENT = {
    publish: { allow: ["shardpact.discover", "shardpact.*.api.>", "_INBOX.>"] }
    subscribe: { allow: ["_INBOX.>"] }
  }
  users = [
    # Connections without credentials: training processes, the command line, auditors.
    { user: "${CLIENT}", password: "${CLIENT}", permissions: $CLIENT }
${members.map((member) => memberBlock(group, member)).join("\n")}${USERS_END}
no_auth_user: "${CLIENT}"
`;
}

/**
 * A shipped configuration that lets one more member in; whatever else was written into it stays. Unchanged when its key
 * is there. Null when the place for it isn't found.
 */
export function withMember(config: string, group: string, member: NatsMember): string | null {
  if (config.includes(`"${member.nkey}"`)) return config;
  const end = config.indexOf(USERS_END);
  return end < 0 ? null : `${config.slice(0, end)}\n${memberBlock(group, member)}${config.slice(end)}`;
}

/**
 * Publishing on `api` lets a replica forward to another what a client sent to it, and asking who is there lets one that was
 * removed bring its last signature to those that came after (`replica/signatures.ts`).
 */
export function memberBlock(group: string, { id, nkey }: NatsMember): string {
  const own = `shardpact.${group}`;
  const inName = (to: string, from: string): string =>
    REPLICA_SUBJECTS.map((kind) => `"${own}.${kind}.${to}.${from}"`).join(", ");
  return `    {
      nkey: "${nkey}" # ${id}
      permissions: {
        publish: { allow: [${inName("*", id)}, "${own}.api.>", "shardpact.discover", "_INBOX.>"] }
        subscribe: { allow: [${inName(id, "*")}, "${own}.api.${id}.*", "shardpact.discover", "_INBOX.>"] }
      }
    }`;
}

function clusterBlock({ port, routes, announced = true }: NatsClusterConfig): string {
  return `
cluster {
  name: "shardpact"
  listen: "0.0.0.0:${port}"
  routes: [${routes.map((route) => `"${route}"`).join(", ")}]
${announced ? "" : UNANNOUNCED}}
`;
}

/** Servers gossip addresses for routes whatever they are told: this one leads nowhere. */
const UNANNOUNCED = `  no_advertise: true
  advertise: "127.0.0.1:1"
`;
