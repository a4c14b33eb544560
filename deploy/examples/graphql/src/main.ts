import { createServer } from "node:http";
import { createClient } from "@tandem-ann/client/node";
import { createSubgraph } from "./subgraph.js";

const { TANDEM_SERVER = "127.0.0.1:8080", PORT = "4001" } = process.env;
const client = createClient(TANDEM_SERVER.split(","), { deadline: 200 });
const server = createServer(createSubgraph(client)).listen(Number(PORT), "127.0.0.1", () => {
  console.log(`http://127.0.0.1:${PORT}/graphql asks ${TANDEM_SERVER}`);
});
process.once("SIGTERM", () => server.close(() => client.close()));
