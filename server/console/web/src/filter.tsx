// Where a filter is written: with completion, and errors under the character that they are about.
import { useEffect, useId, useMemo, useRef, useState } from "preact/hooks";
import type { Attribute } from "./schema";

export interface FilterError {
  line: number;
  column: number; // in characters, from 1 on
  text: string;
}

/** The place that an error of the server names, and what it says. */
export function filterError(message: string): FilterError | null {
  const m = /^filter: line (\d+), column (\d+): ([\s\S]*)$/.exec(message);
  if (m) return { line: Number(m[1]), column: Number(m[2]), text: m[3]! };
  const whole = /^filter: ([\s\S]*)$/.exec(message);
  return whole ? { line: 0, column: 0, text: whole[1]! } : null;
}

interface Option {
  text: string; // what is put in
  note: string;
  back?: number; // how far the cursor goes back
}

const operators: Option[] = [
  { text: "&&", note: "and" },
  { text: "||", note: "or" },
  { text: "!", note: "not" },
  { text: "has()", note: "the attribute is there", back: 1 },
  { text: 'timestamp("")', note: "a time, in RFC 3339", back: 2 },
  { text: "true", note: "" },
  { text: "false", note: "" },
];

function options(attributes: Attribute[], values: Map<string, string[]>, before: string): { from: number; list: Option[] } {
  // Within a text that is compared with a keyword: values that were seen.
  const quoted = /(?:([A-Za-z_]\w*)\s*(?:==|!=)\s*|([A-Za-z_]\w*)\.startsWith\(\s*)"([^"\\]*)$/.exec(before);
  if (quoted) {
    const start = quoted[3]!;
    const list = (values.get(quoted[1] ?? quoted[2]!) ?? []).filter((v) => v.toLowerCase().startsWith(start.toLowerCase())).map((v) => ({ text: v.replace(/["\\]/g, "\\$&") + '"', note: "seen" }));
    return { from: before.length - start.length, list: list.slice(0, 40) };
  }
  const inside = /"([^"\\]*)$/.exec(before.replace(/"[^"\\]*"/g, (m) => " ".repeat(m.length)));
  if (inside) {
    const start = inside[1]!;
    const all = [...values].filter(([name]) => attributes.some((a) => a.name === name && a.type === "keyword_list")).flatMap(([name, list]) => list.map((v) => ({ text: `${v.replace(/["\\]/g, "\\$&")}" in ${name}`, note: "seen" })));
    return { from: before.length - start.length, list: all.filter((o) => o.text.toLowerCase().startsWith(start.toLowerCase())).slice(0, 40) };
  }
  const word = /[A-Za-z_]\w*$/.exec(before)?.[0] ?? "";
  const dotted = before.slice(0, before.length - word.length).endsWith(".");
  const list: Option[] = [];
  if (dotted) {
    const of = /([A-Za-z_]\w*)\.$/.exec(before.slice(0, before.length - word.length))?.[1];
    const type = attributes.find((a) => a.name === of)?.type;
    if (type === "keyword") list.push({ text: 'startsWith("")', note: "begins with a text", back: 2 });
    if (type === "keyword_list") list.push({ text: 'exists(x, x == "")', note: "has a value for which", back: 2 });
  } else {
    for (const a of attributes) list.push({ text: a.name, note: a.type === "keyword_list" ? "list of keywords" : a.type });
    list.push(...operators, { text: "user.", note: "a binding" });
  }
  return { from: before.length - word.length, list: list.filter((o) => word === "" || (o.text.toLowerCase().startsWith(word.toLowerCase()) && o.text !== word)) };
}

interface Props {
  value: string;
  onInput: (text: string) => void;
  run: () => void;
  attributes: Attribute[];
  /** Values of attributes that answers had. */
  values: Map<string, string[]>;
  error: FilterError | null;
}

export function FilterEditor({ value, onInput, run, attributes, values, error }: Props) {
  const area = useRef<HTMLTextAreaElement>(null);
  const list = useRef<HTMLUListElement>(null);
  const id = useId();
  const [open, setOpen] = useState(false);
  const [at, setAt] = useState(0); // where the cursor is
  const [active, setActive] = useState(0);
  const found = useMemo(() => (open ? options(attributes, values, value.slice(0, at)) : { from: 0, list: [] }), [open, attributes, values, value, at]);
  const shown = open && found.list.length > 0;
  useEffect(() => setActive(0), [value, at]);
  useEffect(() => {
    list.current?.children[active]?.scrollIntoView({ block: "nearest" });
  }, [active, shown]);

  const take = (o: Option) => {
    const text = value.slice(0, found.from) + o.text + value.slice(at);
    const cursor = found.from + o.text.length - (o.back ?? 0);
    onInput(text);
    setOpen(o.text.endsWith("."));
    requestAnimationFrame(() => {
      area.current?.focus();
      area.current?.setSelectionRange(cursor, cursor);
      setAt(cursor);
    });
  };
  const keyed = (e: KeyboardEvent) => {
    if (e.key === "Enter" && (e.ctrlKey || e.metaKey)) {
      e.preventDefault();
      setOpen(false);
      run();
    } else if (e.key === " " && e.ctrlKey) {
      e.preventDefault();
      setAt(area.current!.selectionStart);
      setOpen(true);
    } else if (shown && (e.key === "ArrowDown" || e.key === "ArrowUp")) {
      e.preventDefault();
      setActive((active + (e.key === "ArrowDown" ? 1 : found.list.length - 1)) % found.list.length);
    } else if (shown && (e.key === "Enter" || e.key === "Tab")) {
      e.preventDefault();
      take(found.list[active]!);
    } else if (shown && e.key === "Escape") {
      e.preventDefault();
      setOpen(false);
    }
  };
  const lines = value.split("\n");
  const wrong = error && error.line > 0 ? (lines[error.line - 1] ?? "") : "";
  return (
    <div class="filter">
      <textarea
        ref={area}
        id="filter"
        aria-autocomplete="list"
        aria-controls={`${id}-list`}
        aria-activedescendant={shown ? `${id}-${active}` : undefined}
        aria-invalid={error !== null}
        aria-describedby={error ? `${id}-error` : `${id}-help`}
        rows={Math.min(Math.max(lines.length, 2), 8)}
        spellcheck={false}
        autocomplete="off"
        autocapitalize="off"
        placeholder='"ios" in platforms && price_usd < 5'
        value={value}
        onInput={(e) => {
          setAt(e.currentTarget.selectionStart);
          const typed = (e as InputEvent).data;
          setOpen(typed != null && /[\w."]/.test(typed));
          onInput(e.currentTarget.value);
        }}
        onKeyDown={keyed}
        onClick={(e) => {
          setAt(e.currentTarget.selectionStart);
          setOpen(false);
        }}
        onBlur={() => setTimeout(() => setOpen(false), 150)}
      />
      <ul ref={list} id={`${id}-list`} role="listbox" aria-label="Completions" hidden={!shown}>
        {found.list.map((o, i) => (
          <li
            key={o.text}
            id={`${id}-${i}`}
            role="option"
            aria-selected={i === active}
            onMouseDown={(e) => {
              e.preventDefault();
              take(o);
            }}
          >
            <code>{o.text}</code>
            <span class="muted">{o.note}</span>
          </li>
        ))}
      </ul>
      {error ? (
        <div id={`${id}-error`} class="filter-error" role="alert">
          {error.line > 0 && (
            <pre aria-hidden="true">
              {wrong.slice(Math.max(error.column - 41, 0))}
              {"\n"}
              {" ".repeat(Math.min(Math.max(error.column - 1, 0), 40))}
              <b>^</b>
            </pre>
          )}
          <p>
            {error.line > 0 && <span class="offscreen">{`Line ${error.line}, column ${error.column}: `}</span>}
            {error.text}
          </p>
        </div>
      ) : (
        <p id={`${id}-help`} class="hint">
          <kbd>Ctrl</kbd> <kbd>Space</kbd> completes
        </p>
      )}
    </div>
  );
}
