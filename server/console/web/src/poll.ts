// Asking again and again while the page is looked at.
import { useCallback, useEffect, useRef, useState } from "preact/hooks";
import { troubleOf, type Trouble } from "./api";

export interface Polled<T> {
  data: T | undefined;
  trouble: Trouble | null;
  at: number; // when data came
  again: () => void;
}

/** What ask gives, asked every so many milliseconds; data stays while an error lasts. */
export function usePoll<T>(ask: (signal: AbortSignal) => Promise<T>, every: number, keys: unknown[] = []): Polled<T> {
  const [state, set] = useState<{ data: T | undefined; trouble: Trouble | null; at: number }>({ data: undefined, trouble: null, at: 0 });
  const latest = useRef(ask);
  latest.current = ask;
  const [round, next] = useState(0);
  useEffect(() => {
    const ended = new AbortController();
    let timer: ReturnType<typeof setTimeout> | undefined;
    const step = async () => {
      try {
        const data = await latest.current(ended.signal);
        if (!ended.signal.aborted) set({ data, trouble: null, at: Date.now() });
      } catch (e) {
        const trouble = ended.signal.aborted ? null : troubleOf(e);
        if (trouble) set((was) => ({ ...was, trouble }));
      }
      if (!ended.signal.aborted && every > 0) timer = setTimeout(wait, every);
    };
    const wait = () => (document.hidden ? document.addEventListener("visibilitychange", wait, { once: true, signal: ended.signal }) : void step());
    void step();
    return () => {
      ended.abort();
      clearTimeout(timer);
    };
  }, [every, round, ...keys]);
  return { ...state, again: useCallback(() => next((n) => n + 1), []) };
}
