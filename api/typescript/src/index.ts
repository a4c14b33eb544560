export { Client } from "./client.js";
export type { CallOptions, Connect, Options, Result } from "./client.js";
export { domain, reasons, TandemError } from "./errors.js";
export type { CodeName, Field, Missing, Reason } from "./errors.js";
export * from "./gen/tandem/v1/retrieval_pb.js";
