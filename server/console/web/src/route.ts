// The page and what it shows, as the address has it: #/explore?user=u42. It is after the # so that
// the console works under whatever path something before the server gives it.
import { signal } from "./signal";

export interface Route {
  page: string;
  query: URLSearchParams;
}

function read(): Route {
  const [path = "", query = ""] = location.hash.replace(/^#\/?/, "").split("?", 2);
  return { page: path.split("/")[0] || "now", query: new URLSearchParams(query) };
}

export const route = signal<Route>(read());
addEventListener("hashchange", () => route.set(read()));

export function href(page: string, query?: Record<string, string>): string {
  const text = new URLSearchParams(query).toString();
  return `#/${page}${text ? "?" + text : ""}`;
}

/** Changes what the address says of this page, without a step of the history. */
export function replaceQuery(page: string, query: Record<string, string>): void {
  const next = href(page, query);
  if (location.hash !== next) history.replaceState(null, "", next);
}
