// A value that views follow.
import { useEffect, useState } from "preact/hooks";

export interface Signal<T> {
  readonly value: T;
  set(value: T): void;
  follow(f: (value: T) => void): () => void;
}

export function signal<T>(first: T): Signal<T> {
  let value = first;
  const followers = new Set<(value: T) => void>();
  return {
    get value() {
      return value;
    },
    set(next) {
      if (Object.is(next, value)) return;
      value = next;
      for (const f of [...followers]) f(value);
    },
    follow(f) {
      followers.add(f);
      return () => followers.delete(f);
    },
  };
}

/** The value of a signal, in a view that is drawn anew when it changes. */
export function useSignal<T>(s: Signal<T>): T {
  const [value, set] = useState(s.value);
  useEffect(() => {
    set(() => s.value);
    return s.follow((v) => set(() => v));
  }, [s]);
  return value;
}
