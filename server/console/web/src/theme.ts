// Light or dark, as the system has it or as somebody chose.
import { signal } from "./signal";

export type Theme = "auto" | "light" | "dark";

const key = "tandem-theme";
const system = matchMedia("(prefers-color-scheme: dark)");

function stored(): Theme {
  try {
    const text = localStorage.getItem(key);
    return text === "light" || text === "dark" ? text : "auto";
  } catch {
    return "auto"; // storage may be off
  }
}

export const theme = signal<Theme>(stored());
const isDark = () => theme.value === "dark" || (theme.value === "auto" && system.matches);
export const dark = signal(isDark());

function apply() {
  if (theme.value === "auto") delete document.documentElement.dataset["theme"];
  else document.documentElement.dataset["theme"] = theme.value;
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
