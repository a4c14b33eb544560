// The colours that somebody chose in this browser: known before anything is drawn.
export type Theme = "auto" | "light" | "dark";

export const key = "tandem-theme";

export function stored(): Theme {
  try {
    const text = localStorage.getItem(key);
    return text === "light" || text === "dark" ? text : "auto";
  } catch {
    return "auto"; // storage may be off
  }
}

export function show(t: Theme): void {
  if (t === "auto") delete document.documentElement.dataset["theme"];
  else document.documentElement.dataset["theme"] = t;
}
