// Where an app or a user is chosen, by its id or by how its name begins.
import { create } from "@bufbuild/protobuf";
import { useEffect, useId, useRef, useState } from "preact/hooks";
import { retrieval } from "./api";
import { valueTexts } from "./format";
import { Fallback, RetrieveRequestSchema, Tower } from "./gen/tandem/v1/retrieval_pb";

export interface Picked {
  id: string;
  name: string;
}

const quote = (text: string) => JSON.stringify(text);

/** Entities of a tower whose id is a text, or whose name begins with it; with none, some that suit most users. */
async function search(text: string, tower: Tower, name: string, signal: AbortSignal): Promise<Picked[]> {
  // The mean user stands for whoever looks: no id and no vector is needed to ask. An id that nobody has is needed for that.
  const base = { userId: "\u0001console", fallback: Fallback.MEAN_USER, target: tower, k: 8, attributes: name ? [name] : [] };
  const requests = [];
  if (text) requests.push(create(RetrieveRequestSchema, { ...base, includeIds: [text] }));
  if (!text) requests.push(create(RetrieveRequestSchema, base));
  if (text && name) {
    const forms = [...new Set([text, text[0]!.toUpperCase() + text.slice(1), text.replace(/(^|\s)\S/g, (c) => c.toUpperCase())])];
    requests.push(create(RetrieveRequestSchema, { ...base, filter: forms.map((f) => `${name}.startsWith(${quote(f)})`).join(" || ") }));
  }
  const answer = await retrieval.batchRetrieve({ requests }, { signal });
  const found = new Map<string, Picked>();
  for (const r of answer.results) {
    if (r.outcome.case !== "response") continue;
    for (const c of r.outcome.value.candidates) found.set(c.id, { id: c.id, name: name ? (valueTexts(c.attributes[name])[0] ?? "") : "" });
  }
  return [...found.values()].slice(0, 10);
}

interface Props {
  label: string;
  value: string;
  tower: Tower;
  name: string; // the attribute that has names
  placeholder: string;
  onPick: (p: Picked) => void;
  compact?: boolean;
}

export function Picker({ label, value, tower, name, placeholder, onPick, compact }: Props) {
  const id = useId();
  const [text, setText] = useState(value);
  const [open, setOpen] = useState(false);
  const [list, setList] = useState<Picked[]>([]);
  const [active, setActive] = useState(-1);
  const [searched, setSearched] = useState("");
  const box = useRef<HTMLDivElement>(null);
  useEffect(() => setText(value), [value]);
  useEffect(() => {
    if (!open) return;
    const ended = new AbortController();
    const timer = setTimeout(() => {
      search(text === value ? "" : text.trim(), tower, name, ended.signal)
        .then((found) => {
          setList(found);
          setSearched(text);
          setActive(-1);
        })
        .catch(() => ended.signal.aborted || setList([])); // what is typed can be asked for all the same, and says why not
    }, 150);
    return () => {
      ended.abort();
      clearTimeout(timer);
    };
  }, [open, text, tower, name]);
  const pick = (p: Picked) => {
    setText(p.id);
    setOpen(false);
    onPick(p);
  };
  const shown = open && list.length > 0;
  return (
    <div class={`picker ${compact ? "compact" : ""}`} ref={box}>
      <label for={id}>{label}</label>
      <input
        id={id}
        role="combobox"
        aria-autocomplete="list"
        aria-expanded={shown}
        aria-controls={`${id}-list`}
        aria-activedescendant={shown && active >= 0 ? `${id}-${active}` : undefined}
        spellcheck={false}
        autocomplete="off"
        autocapitalize="off"
        placeholder={placeholder}
        value={text}
        onFocus={(e) => {
          e.currentTarget.select();
          setOpen(true);
        }}
        onInput={(e) => {
          setText(e.currentTarget.value);
          setOpen(true);
        }}
        onBlur={() =>
          setTimeout(() => {
            if (box.current?.contains(document.activeElement)) return;
            setOpen(false);
          }, 150)
        }
        onKeyDown={(e) => {
          if (e.key === "ArrowDown" || e.key === "ArrowUp") {
            e.preventDefault();
            setOpen(true);
            if (list.length) setActive((active + (e.key === "ArrowDown" ? 1 : list.length - 1 + (active < 0 ? 1 : 0))) % list.length);
          } else if (e.key === "Enter") {
            e.preventDefault();
            // A name that only one has needs no choice; else what is typed is an id.
            const only = list.length === 1 && searched === text ? list[0] : undefined;
            const chosen = active >= 0 ? list[active] : only;
            if (chosen) pick(chosen);
            else if (text.trim()) pick({ id: text.trim(), name: "" });
          } else if (e.key === "Escape") setOpen(false);
        }}
      />
      <ul id={`${id}-list`} role="listbox" aria-label={`${label}: found`} hidden={!shown}>
        {list.map((p, i) => (
          <li
            key={p.id}
            id={`${id}-${i}`}
            role="option"
            aria-selected={i === active}
            onMouseDown={(e) => {
              e.preventDefault();
              pick(p);
            }}
          >
            {p.name ? (
              <>
                <span>{p.name}</span>
                <code class="muted">{p.id}</code>
              </>
            ) : (
              <code>{p.id}</code>
            )}
          </li>
        ))}
      </ul>
    </div>
  );
}
