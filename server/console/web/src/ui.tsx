// Parts that several pages have.
import type { ComponentChildren } from "preact";
import { useEffect, useLayoutEffect, useRef, useState } from "preact/hooks";
import type { Trouble } from "./api";
import { shortDigest } from "./format";

export function Icon({ name }: { name: keyof typeof paths }) {
  return (
    <svg class="icon" viewBox="0 0 20 20" aria-hidden="true" focusable="false">
      <path d={paths[name]} />
    </svg>
  );
}

const paths = {
  now: "M3 11h3l2-6 4 11 2-5h3",
  explore: "M9 3.5a5.5 5.5 0 1 1 0 11 5.5 5.5 0 0 1 0-11zM13 13l4 4",
  snapshots: "M10 3l7 3.5-7 3.5-7-3.5zM3 10l7 3.5 7-3.5M3 13.5L10 17l7-3.5",
  releases: "M5 3v14M5 6c0 4 10 3 10 8M15 14m-2 0a2 2 0 1 0 4 0 2 2 0 1 0-4 0M5 4m-2 0a2 2 0 1 0 4 0 2 2 0 1 0-4 0",
  nodes: "M4 4h12v4H4zM4 12h12v4H4zM7 6h.01M7 14h.01",
  good: "M4 10.5l4 4 8-9",
  bad: "M10 5v6M10 14.5v.5",
  sun: "M10 6.5a3.5 3.5 0 1 1 0 7 3.5 3.5 0 0 1 0-7zM10 2v1.5M10 16.5V18M2 10h1.5M16.5 10H18M4.3 4.3l1.1 1.1M14.6 14.6l1.1 1.1M15.7 4.3l-1.1 1.1M5.4 14.6l-1.1 1.1",
  moon: "M16 11.8A6.5 6.5 0 1 1 8.2 4a5.2 5.2 0 0 0 7.8 7.8z",
  auto: "M10 3.5a6.5 6.5 0 1 1 0 13 6.5 6.5 0 0 1 0-13zM10 3.5v13",
  out: "M12 4H5v12h7M9 10h8M14 7l3 3-3 3",
  copy: "M7 7h9v9H7zM13 7V4H4v9h3",
  manual: "M4.5 3.5H13a2.5 2.5 0 0 1 2.5 2.5v10.5H7A2.5 2.5 0 0 1 4.5 14zM7.5 7.5h5M7.5 10.5h5",
  close: "M5 5l10 10M15 5L5 15",
  add: "M10 4v12M4 10h12",
};

export function TroubleBox({ trouble, again }: { trouble: Trouble; again?: () => void }) {
  return (
    <div class={`trouble ${trouble.kind === "busy" ? "warn" : "bad"}`} role="alert">
      <strong>{trouble.title}</strong>
      <p>{trouble.text}</p>
      {trouble.next && <p class="muted">{trouble.next}</p>}
      {again && (
        <button type="button" onClick={again}>
          Try again
        </button>
      )}
    </div>
  );
}

/** A page of the documentation, which stands beside the console, such as docs/runbook.md#tandemrecalllow. */
export function Manual({ page }: { page: string }) {
  const [, name, section] = /^docs\/([\w-]+)\.md(#[\w-]+)?$/.exec(page) ?? [];
  return name ? <a href={`../docs/${name}${section ?? ""}`}>{page}</a> : <>{page}</>;
}

export function Empty({ title, children }: { title: string; children?: ComponentChildren }) {
  return (
    <div class="empty">
      <strong>{title}</strong>
      {children && <p>{children}</p>}
    </div>
  );
}

/** Stands where something will be, while it is on its way. */
export function Loading({ lines = 3, what }: { lines?: number; what: string }) {
  return (
    <div class="loading" role="status" aria-label={`Loading ${what}`}>
      {Array.from({ length: lines }, (_, i) => (
        <span key={i} />
      ))}
    </div>
  );
}

/** A digest in short, which can be copied whole. */
export function Digest({ of }: { of: string }) {
  const [copied, set] = useState(false);
  useEffect(() => {
    if (!copied) return;
    const timer = setTimeout(() => set(false), 1500);
    return () => clearTimeout(timer);
  }, [copied]);
  return (
    <button type="button" class="digest" title={`Copy ${of}`} aria-label={copied ? "Copied" : `Copy snapshot ${shortDigest(of)}`} onClick={() => void copyText(of).then(set)}>
      <code>{shortDigest(of)}</code>
      <span aria-hidden="true">{copied ? "copied" : <Icon name="copy" />}</span>
    </button>
  );
}

export const narrow = matchMedia("(max-width: 700px)");

/**
 * A table that can be scrolled by keyboard where it is too wide. Where a window is narrow its rows stand
 * as blocks, each cell with the head of its column, which is read off the head when it is drawn.
 */
export function Table({ label, class: name, children }: { label: string; class?: string; children: ComponentChildren }) {
  const ref = useRef<HTMLTableElement>(null);
  const stacked = useMatch(narrow);
  useLayoutEffect(() => {
    const table = ref.current!;
    if (!stacked || !table.tHead) return;
    const heads = [...table.tHead.rows[0]!.cells].map((c) => (c.querySelector(".offscreen") ? "" : (c.textContent?.trim() ?? "")));
    for (const body of table.tBodies) {
      for (const row of body.rows) {
        if (row.cells.length !== heads.length) continue; // a note across all columns
        for (let i = 0; i < heads.length; i++) {
          const cell = row.cells[i]!;
          if (cell.dataset["label"] !== heads[i]) cell.dataset["label"] = heads[i]!;
        }
      }
    }
  });
  return (
    <div class={`scroll ${stacked ? "stacked" : ""}`} tabIndex={stacked ? undefined : 0} role="region" aria-label={label}>
      <table ref={ref} class={name}>
        {children}
      </table>
    </div>
  );
}

/** Whether a media query holds, followed. */
export function useMatch(query: MediaQueryList): boolean {
  const [holds, set] = useState(query.matches);
  useEffect(() => {
    const look = () => set(query.matches);
    look();
    query.addEventListener("change", look);
    return () => query.removeEventListener("change", look);
  }, [query]);
  return holds;
}

export async function copyText(text: string): Promise<boolean> {
  try {
    await navigator.clipboard.writeText(text);
    return true;
  } catch {
    // Without TLS, beyond loopback, there is no clipboard: what is selected can be copied.
    const area = document.createElement("textarea");
    area.value = text;
    area.className = "offscreen";
    (document.querySelector("dialog[open]") ?? document.body).append(area);
    area.select();
    const done = document.execCommand("copy");
    area.remove();
    return done;
  }
}

/** A text with what is in it of commands, names of metrics and flags set apart. */
export function Prose({ text }: { text: string }) {
  const parts = text.split(/(tandem (?:[a-z]+ )*[a-z]+(?: --?[a-z][\w-]*(?: [A-Z0-9][\w.:-]*| [0-9a-f]{12}| \d+\w*)?| [A-Z]{3,}[A-Z_]*| [0-9a-f]{12})+|tandem_[a-z_]+|grpc_[a-z_]+|--[a-z][a-z-]+)/g);
  return <>{parts.map((p, i) => (i % 2 ? <code key={i}>{p}</code> : p))}</>;
}

export function Dialog({ title, open, close, children, wide }: { title: string; open: boolean; close: () => void; children: ComponentChildren; wide?: boolean }) {
  const ref = useRef<HTMLDialogElement>(null);
  useEffect(() => {
    const dialog = ref.current!;
    if (open && !dialog.open) dialog.showModal();
    if (!open && dialog.open) dialog.close();
  }, [open]);
  return (
    <dialog ref={ref} class={wide ? "wide" : ""} aria-label={title} onClose={close} onClick={(e) => e.target === ref.current && close()}>
      <header>
        <h2>{title}</h2>
        <button type="button" class="quiet" aria-label="Close" onClick={close}>
          <Icon name="close" />
        </button>
      </header>
      {open && children}
    </dialog>
  );
}

/** One of a few, beside each other. */
export function Choice<T extends string>({ label, value, options, onChange }: { label: string; value: T; options: readonly (readonly [T, string])[]; onChange: (v: T) => void }) {
  return (
    <div class="choice" role="radiogroup" aria-label={label}>
      {options.map(([v, text], i) => (
        <button
          key={v}
          type="button"
          role="radio"
          aria-checked={v === value}
          tabIndex={v === value ? 0 : -1}
          onClick={() => onChange(v)}
          onKeyDown={(e) => {
            const step = e.key === "ArrowRight" || e.key === "ArrowDown" ? 1 : e.key === "ArrowLeft" || e.key === "ArrowUp" ? -1 : 0;
            if (!step) return;
            e.preventDefault();
            const next = options[(i + step + options.length) % options.length]!;
            onChange(next[0]);
            (e.currentTarget.parentElement!.children[options.indexOf(next)] as HTMLElement).focus();
          }}
        >
          {text}
        </button>
      ))}
    </div>
  );
}
