// The query of the page as a program sends it.
import { useState } from "preact/hooks";
import type { RetrieveRequest } from "./gen/tandem/v1/retrieval_pb";
import { RetrieveRequestSchema } from "./gen/tandem/v1/retrieval_pb";
import { toJson } from "@bufbuild/protobuf";
import { Choice, copyText, Dialog } from "./ui";

type Kind = "curl" | "Go" | "TypeScript" | "Python";
type Json = null | boolean | number | string | Json[] | { [k: string]: Json };

const quoteShell = (text: string) => `'${text.replaceAll("'", `'\\''`)}'`;
const snake = (name: string) => name.replace(/[A-Z]/g, (c) => "_" + c.toLowerCase());

function python(v: Json, indent: string): string {
  if (v === null) return "None";
  if (typeof v === "boolean") return v ? "True" : "False";
  if (Array.isArray(v)) return `[${v.map((x) => python(x, indent)).join(", ")}]`;
  if (typeof v === "object") return `{${Object.entries(v).map(([k, x]) => `${JSON.stringify(k)}: ${python(x, indent)}`).join(", ")}}`;
  return JSON.stringify(v);
}

const goNames: Record<string, string> = { userId: "UserId", appId: "AppId" };
const goField = (k: string) => goNames[k] ?? k[0]!.toUpperCase() + k.slice(1);
const goStrings = (list: Json[]) => `[]string{${list.map((x) => JSON.stringify(x)).join(", ")}}`;

function goValue(k: string, v: Json): string {
  if (k === "target" || k === "fallback") return `tandemv1.${k === "target" ? "Tower" : "Fallback"}_${String(v)}`;
  if (k === "recallTarget") return `proto.Float64(${String(v)})`;
  if (k === "ef") return `proto.Uint32(${String(v)})`;
  if (k === "atMost") return `[]*tandemv1.AtMost{${(v as { attribute: string; n: number }[]).map((x) => `{Attribute: ${JSON.stringify(x.attribute)}, N: ${x.n}}`).join(", ")}}`;
  if (k === "bindings") {
    const value = (x: Json): string =>
      typeof x === "string" ? `structpb.NewStringValue(${JSON.stringify(x)})`
      : typeof x === "number" ? `structpb.NewNumberValue(${x})`
      : typeof x === "boolean" ? `structpb.NewBoolValue(${x})`
      : `structpb.NewListValue(&structpb.ListValue{Values: []*structpb.Value{${((x as Json[]) ?? []).map(value).join(", ")}}})`;
    return `map[string]*structpb.Value{${Object.entries(v as { [k: string]: Json }).map(([n, x]) => `${JSON.stringify(n)}: ${value(x)}`).join(", ")}}`;
  }
  if (Array.isArray(v)) return goStrings(v);
  return JSON.stringify(v);
}

export function program(kind: Kind, request: RetrieveRequest): string {
  const json = toJson(RetrieveRequestSchema, request) as { [k: string]: Json };
  const fields = Object.entries(json);
  switch (kind) {
    case "curl":
      return `curl -s http://127.0.0.1:8080/tandem.v1.RetrievalService/Retrieve \\\n  -H 'Content-Type: application/json' \\\n  -H "Authorization: Bearer $TANDEM_TOKEN" \\\n  -d ${quoteShell(JSON.stringify(json))}`;
    case "Go":
      return `client := tandemv1connect.NewRetrievalServiceClient(http.DefaultClient, "http://127.0.0.1:8080")
request := connect.NewRequest(&tandemv1.RetrieveRequest{
${fields.map(([k, v]) => `\t${goField(k)}: ${goValue(k, v)},`).join("\n")}
})
request.Header().Set("Authorization", "Bearer "+token)
answer, err := client.Retrieve(ctx, request)
if err != nil {
\treturn err
}
for _, c := range answer.Msg.Candidates {
\tfmt.Println(c.Id, c.Score)
}`;
    case "TypeScript":
      return `const transport = createConnectTransport({ baseUrl: "http://127.0.0.1:8080" });
const client = createClient(RetrievalService, transport);
const answer = await client.retrieve(
  fromJson(RetrieveRequestSchema, ${JSON.stringify(json, null, 2).replaceAll("\n", "\n  ")}),
  { headers: { Authorization: \`Bearer \${token}\` }, timeoutMs: 1000 },
);
for (const c of answer.candidates) console.log(c.id, c.score);`;
    case "Python":
      return `request = json_format.ParseDict({
${fields.map(([k, v]) => `    ${JSON.stringify(snake(k))}: ${python(v, "    ")},`).join("\n")}
}, retrieval_pb2.RetrieveRequest())
channel = grpc.insecure_channel("127.0.0.1:8080")
stub = retrieval_pb2_grpc.RetrievalServiceStub(channel)
answer = stub.Retrieve(request, timeout=1.0, metadata=[("authorization", f"Bearer {token}")])
for c in answer.candidates:
    print(c.id, c.score)`;
  }
}

export function CopyAs({ request, open, close }: { request: RetrieveRequest; open: boolean; close: () => void }) {
  const [kind, setKind] = useState<Kind>("curl");
  const [copied, setCopied] = useState(false);
  const text = open ? program(kind, request) : "";
  return (
    <Dialog title="This query in a program" open={open} close={close} wide>
      <Choice
        label="Language"
        value={kind}
        options={[["curl", "curl"], ["Go", "Go"], ["TypeScript", "TypeScript"], ["Python", "Python"]] as const}
        onChange={(k) => {
          setKind(k);
          setCopied(false);
        }}
      />
      <pre class="program" tabIndex={0}>
        <code>{text}</code>
      </pre>
      <footer>
        <span class="muted">The address is that of --listen; without --tokens leave the header out.</span>
        <button type="button" class="main" onClick={() => void copyText(text).then(setCopied)}>
          {copied ? "Copied" : "Copy"}
        </button>
      </footer>
    </Dialog>
  );
}
