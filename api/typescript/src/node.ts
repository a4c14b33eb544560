import * as http from "node:http";
import * as https from "node:https";
import type { SecureContextOptions } from "node:tls";
import { createConnectTransport } from "@connectrpc/connect-node";
import { Client } from "./client.js";
import type { Options } from "./client.js";

export * from "./index.js";

/** How a client asks from Node. */
export interface NodeOptions extends Options {
  /** Certificates of authorities, and the client's own. */
  tls?: SecureContextOptions;
  /** How many connections a server has from this client at most: 256 by default. */
  connections?: number;
}

/** A client that asks over HTTP/1.1, whose connections are kept: that costs servers less CPU than HTTP/2. */
export function createClient(addresses: string | readonly string[], options: NodeOptions = {}): Client {
  const { tls, connections = 256, ...rest } = options;
  if (!(connections >= 1)) throw new RangeError(`connections is ${connections}; accepted: at least 1`);
  const agents: (http.Agent | https.Agent)[] = [];
  const client = new Client(addresses, (baseUrl) => {
    // Idle connections end before servers end them, at 30 s, so that none is used as it closes.
    const keep = { keepAlive: true, maxSockets: connections, maxFreeSockets: connections, timeout: 20_000 };
    const agent = baseUrl.startsWith("https:") ? new https.Agent({ ...keep, ...tls }) : new http.Agent(keep);
    agents.push(agent);
    return createConnectTransport({ baseUrl, httpVersion: "1.1", acceptCompression: [], readMaxBytes: 64 << 20, nodeOptions: { agent } });
  }, rest);
  const close = client.close.bind(client);
  client.close = () => {
    close();
    for (const agent of agents) agent.destroy();
  };
  return client;
}
