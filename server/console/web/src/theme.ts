// Light or dark, as the system has it or as somebody chose.
import { signal } from "./signal";
import { key, show, stored, type Theme } from "./stored";

export type { Theme };

const system = matchMedia("(prefers-color-scheme: dark)");

export const theme = signal<Theme>(stored());
const isDark = () => theme.value === "dark" || (theme.value === "auto" && system.matches);
export const dark = signal(isDark());

function apply() {
  show(theme.value);
  dark.set(isDark());
}
apply();
system.addEventListener("change", apply);

export function choose(t: Theme): void {
  theme.set(t);
  try {
    if (t === "auto") localStorage.removeItem(key);
    else localStorage.setItem(key, t);
  } catch {
    // it is for this page then
  }
  apply();
}
